#!/usr/bin/env bash
# Both experiments on the street photos, side by side on one GPU, on a machine without a network.
#
#   bash experiments/street/both.sh OUT PARTS_DIR...
#
# PARTS_DIR: folders with the part-N of `carry.py pack --only data` and of `--only wheels`, each whole in one folder.
# OUT gets table.md and street.json, results.tar.gz (JSON, tables, logs, the report) and pictures.tar (JPEG).
# Environment: WORK, where everything else is written; COMPARE and STREET, options of compare_sources.py and of run.py;
# COMPARE_SECONDS and STREET_SECONDS, after which each is stopped, with what it has.
set -u
cd "$(dirname "$0")/../.."
OUT=$1
shift
WORK=${WORK:-$(mktemp -d)}
PYTHON=${PYTHON:-python3}
read -ra COMPARE <<<"${COMPARE:---processes 6 --batch_size 8 --epochs 10 --lr 3e-3 --num_workers 2}"
read -ra STREET <<<"${STREET:-}"
mkdir -p "$OUT" "$WORK/street"
# With many runs on one machine, a pool of compilers for each would only be in the others' way.
export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-1}
first=$SECONDS
say() { echo "$((SECONDS - first)) s: $*"; }

# The photos are there in seconds; the parts of the language model take longer.
unpack() { "$PYTHON" experiments/street/carry.py unpack --parts_dir "$1" --out "$WORK/inputs"; }
for parts in "$@"; do
  unpack "$parts" &
  unpacking+=($!)
done
wait "${unpacking[0]}" || exit 2
say "photos unpacked"
comparing() {
  nice -n 5 timeout --kill-after=15 "${COMPARE_SECONDS:-400}" "$PYTHON" scripts/compare_sources.py \
    --data_dir "$WORK/inputs/data" --out "$WORK/compare" --cache_dir "$WORK/features" "${COMPARE[@]}" "$@"
}
comparing >"$WORK/compare.log" 2>&1 &
comparison=$!
experiment=
if [ $# -gt 1 ]; then
  wait "${unpacking[@]:1}" || exit 2
  say "parts unpacked"
  timeout --kill-after=15 "${STREET_SECONDS:-540}" "$PYTHON" experiments/street/run.py --data_dir "$WORK/inputs/data" \
    --wheels "$WORK/inputs/wheels" --models "$WORK/models" --out "$WORK/street" "${STREET[@]}" >"$WORK/street/log.txt" 2>&1 &
  experiment=$!
fi
wait "$comparison"
status=$?
say "compare_sources.py: $status"
if [ ! -s "$WORK/compare/table.md" ]; then
  tail -c 1500 "$WORK/compare.log"
  comparing --table_only >>"$WORK/compare.log" 2>&1 || say "no table"
fi
cat "$WORK/compare/table.md"
if [ -n "$experiment" ]; then
  wait "$experiment"
  say "run.py: $?"
  tail -c 2500 "$WORK/street/log.txt"
fi

mkdir -p "$WORK/compare" && cp "$WORK/compare.log" "$WORK/compare/"
cp "$WORK/compare/table.md" "$WORK/street/street.json" "$OUT/" 2>/dev/null
(cd "$WORK" && find compare street -type f -size -8M \( -name '*.json' -o -name '*.jsonl' -o -name '*.md' -o -name '*.txt' \
  -o -name '*.log' -o -name '*.html' -o -name '*.csv' \) ! -path '*/model/*' -print0 | tar czf "$OUT/results.tar.gz" --null -T -)
"$PYTHON" - "$WORK" <<'PY'
"""The last sheet of overlays of each run, its curves, and the pictures of the report, as JPEG."""
import re
import sys
from pathlib import Path

from PIL import Image

work = Path(sys.argv[1])
chosen = [*work.glob("street/**/*.png"), *work.glob("street/**/*.jpg"), *work.glob("compare/*/curves.png")]
for folder in work.glob("compare/*/"):
    sheets = sorted(folder.glob("overlays_epoch_*.png"), key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))
    chosen += sheets[-1:]
for path in chosen:
    to = work / "pictures" / path.relative_to(work).with_suffix(".jpg")
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).convert("RGB").save(to, quality=85)
PY
[ -d "$WORK/pictures" ] && tar cf "$OUT/pictures.tar" -C "$WORK" pictures
ls -l "$OUT"
say "done"
