#!/usr/bin/env bash
# The whole path with the bundled tiny models: data, training, evaluation, one image. Prints each command
# as it runs it; they are the ones to type for models and data of your own. Run it by `make quickstart`.
set -euo pipefail

out=${1:-quickstart}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# Print a command as one would type it, then run it.
run() {
  printf '\n$'
  local word
  for word in "$@"; do
    case $word in
      *[!A-Za-z0-9_./:=-]*) printf " '%s'" "${word//\'/\'\\\'\'}" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
  "$@"
}

if [ -e "$out" ] && [ ! -e "$out/.quickstart" ]; then
  echo "$out is there already and was not made by the quickstart; name another folder: make quickstart QUICKSTART=FOLDER" >&2
  exit 2
fi
rm -rf "$out"
mkdir -p "$out"
touch "$out/.quickstart"

run modified-lisa scenes "$out/scenes" --train 120 --val 24 --test 40 --seed 1

run accelerate launch --num_processes 1 scripts/train_new2.py \
  --vlm_name tiny --sam_name tiny --use_vlm_vision --dtype fp32 --no_quantization \
  --init_from tiny --train_mask_decoder \
  --data_dir "$out/scenes" --epochs 2 --batch_size 4 --lr 3e-4 --warmup_steps 20 \
  --output_dir "$out/outputs" --checkpoint_dir "$out/checkpoints"

best=$(find "$out/checkpoints" -name 'best_model_epoch_*.pt' | sort -V | tail -n 1)

run modified-lisa evaluate "$best" --data_dir "$out/scenes" --split test --output_dir "$out/evaluation"

image=$(find "$out/scenes/test" -name '*.jpg' | sort | head -n 1)
query=$(python -c 'import json, sys; print(json.load(open(sys.argv[1], encoding="utf-8"))["text"][0])' "${image%.jpg}.json")

run modified-lisa segment "$image" "$query" --checkpoint "$best" --out "$out/overlay.png"

cat <<END

Done. Where to look:
  $out/overlay.png               the answer to the last command, drawn on its image
  $out/evaluation/               overlays_test.png: image, query, truth, prediction; evaluation_test.json
  $out/outputs/                  curves.png, overlays_epoch_N.png, metrics_epoch_N.json, training_history.json
  $out/scenes/                   the generated data, in the layout of ReasonSeg
  $best
                                       the trained weights; --checkpoint of \`modified-lisa segment\`
END
