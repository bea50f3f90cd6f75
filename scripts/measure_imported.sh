#!/usr/bin/env bash
# Memory and latency of a 7B model of random weights in the original LISA's layout: bash scripts/measure_imported.sh OUT
# SIZE=tiny and PYTHON for a try on a CPU. Needs the package and bitsandbytes on PYTHONPATH.
set -u
OUT=$1; SIZE=${SIZE:-7b}; PYTHON=${PYTHON:-python3}; BASE=${BASE:-/tmp/lisa7b}
mkdir -p "$OUT" "$BASE"
log=$OUT/import7b.log; : >"$log"
first=$SECONDS
say() { echo "$((SECONDS - first)) s: $*" | tee -a "$log"; }
# In memory, if it may be mounted: 16 GB on a disk, waited for, can take longer than all the rest.
if [ "$SIZE" != tiny ] && [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=24g tmpfs "$BASE" 2>>"$log"; then say "tmpfs"; mounted=1; fi
df -h "$BASE" | tail -1 | tee -a "$log"; free -g | sed -n 2p | tee -a "$log"
nvidia-smi --query-gpu=name,memory.used --format=csv,noheader 2>/dev/null | tee -a "$log"
rm -rf "$BASE/source"
timeout 100 "$PYTHON" scripts/random_lisa.py "$BASE/source" --size "$SIZE" --shard_gb 2.5 >"$OUT/random_lisa.log" 2>&1 \
  || { say "random_lisa failed"; tail -c 1500 "$OUT/random_lisa.log"; exit 1; }
say "written: $(du -sh "$BASE/source" | cut -f1)"
for precision in nf4 none; do
  timeout "${LIMIT:-100}" "$PYTHON" scripts/measure_lisa.py "$BASE/source" --precisions "$precision" --out "$OUT/lisa7b-$precision.json" \
    >"$OUT/measure-$precision.log" 2>&1 || say "measuring $precision: exit status $?"
  tail -c 1200 "$OUT/measure-$precision.log"
  say "$precision done"
done
rm -rf "$BASE/source"; [ -n "${mounted:-}" ] && umount "$BASE"
say "done"; ls -l "$OUT"
