#!/usr/bin/env bash
# A 7B model of random weights in the original LISA's layout, measured: bash scripts/measure_imported.sh OUT
#   nf4, none   memory and latency of a query (measure_lisa.py)
#   distill     a shared-encoder model of it in 4 bit, with the memory of a card of CARD_GIB (measure_distill.py)
# WHAT="distill" for one of them; SIZE=tiny and PYTHON for a try on a CPU. Needs the package and bitsandbytes on PYTHONPATH.
set -u
OUT=$1; SIZE=${SIZE:-7b}; PYTHON=${PYTHON:-python3}; BASE=${BASE:-/tmp/lisa7b}
WHAT=${WHAT:-nf4 none distill}; LIMIT=${LIMIT:-100}; CARD_GIB=${CARD_GIB:-8}
# The default, and what docs/distillation.md advises where other programs run; two steps of 8 an epoch.
if [ "$SIZE" = tiny ]; then : "${BATCHES:=2}" "${IMAGES:=3}"; else : "${BATCHES:=8 4}" "${IMAGES:=17}"; fi
mkdir -p "$OUT" "$BASE"
log=$OUT/import7b.log; : >"$log"
first=$SECONDS; failed=0; mounted=
say() { echo "$((SECONDS - first)) s: $*" | tee -a "$log"; }
# step NAME SECONDS SCRIPT WORDS...: its output in OUT/NAME.log, the end of it here
step() {
  local name=$1 limit=$2 status=0; shift 2
  timeout "$limit" "$PYTHON" "$@" >"$OUT/$name.log" 2>&1 || { status=$?; failed=1; }
  tail -c 1500 "$OUT/$name.log"
  say "$name: exit status $status"
  return "$status"
}
clean() { rm -rf "$BASE/source" "$BASE/scenes" "$BASE/cache" "$BASE"/student-*; }
finish() { clean; [ -z "$mounted" ] || umount "$BASE"; say "done"; ls -l "$OUT"; exit "$failed"; }
# In memory, if it may be mounted: 16 GB on a disk, waited for, can take longer than all the rest.
if [ "$SIZE" != tiny ] && [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=24g tmpfs "$BASE" 2>>"$log"; then say "tmpfs"; mounted=1; fi
df -h "$BASE" | tail -1 | tee -a "$log"; free -g | sed -n 2p | tee -a "$log"
nvidia-smi --query-gpu=name,memory.used,memory.total,driver_version --format=csv,noheader 2>/dev/null | tee -a "$log"
clean
step random_lisa 100 scripts/random_lisa.py "$BASE/source" --size "$SIZE" --shard_gb 2.5 || finish
say "written: $(du -sh "$BASE/source" | cut -f1)"
for what in $WHAT; do
  if [ "$what" != distill ]; then
    step "measure-$what" "$LIMIT" scripts/measure_lisa.py "$BASE/source" --precisions "$what" --out "$OUT/lisa7b-$what.json"
    continue
  fi
  step scenes 60 -m modified_lisa.apps.cli scenes "$BASE/scenes" --train "$IMAGES" --val 0 --test 0 || finish
  for batch in $BATCHES; do  # the first fills the cache, so that its seconds and its memory are those of everything
    step "distill-$batch" "$((2 * LIMIT))" scripts/measure_distill.py --card_gib "$CARD_GIB" --out "$OUT/distill7b-$batch.json" -- \
      "$BASE/source" "$BASE/student-$batch" --images "$BASE/scenes/train" --cache_dir "$BASE/cache" --quantization nf4 \
      --embedding_epochs 2 --mask_epochs 2 --batch_size "$batch"
  done
done
finish
