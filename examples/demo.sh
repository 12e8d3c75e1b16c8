#!/bin/sh
# examples/demo.sh [TOOL]: the way of the paper in five minutes of a small machine. First half
# pictures, completed by the model in the box. Then CIFAR-10, reduced to 16 x 16; a palette; an
# auto-regressive model, trained by the clock; its completions; a linear probe at every depth,
# beside the same probe on raw pixels. `make demo` calls it; everything it makes is in build/demo.
# DEMO_SECONDS changes the five minutes.
set -eu
tool=${1:-build/igpt}
start=${DEMO_START:-$(date +%s)}
seconds=${DEMO_SECONDS:-290}
out=build/demo
mkdir -p "$out"

passed() { echo $(($(date +%s) - start)); }
left() { echo $((seconds - $(passed))); }
say() { printf '\n==== %s (%d s)\n' "$1" "$(passed)"; }
limited() {   # SECONDS COMMAND...
  if command -v timeout >/dev/null 2>&1; then timeout "$@"; else shift; "$@"; fi
}

# ---- pictures ----------------------------------------------------------------------------------

say "pictures"
data=
for folder in build/data data; do
  if [ -f "$folder/cifar-10-batches-bin/test_batch.bin" ]; then
    data=$folder/cifar-10-batches-bin
    break
  fi
done
if [ -z "$data" ] && [ -f ../shared/data/prepare.sh ]; then
  limited 90 sh ../shared/data/prepare.sh build/data && data=build/data/cifar-10-batches-bin || :
fi
if [ -z "$data" ]; then
  make --no-print-directory build/fetch_cifar10
  data=$(limited 75 build/fetch_cifar10 build/data) || data=
fi
what="CIFAR-10"
if [ -z "$data" ]; then
  data=shapes:12000
  what="shapes that the program draws itself"
  echo "CIFAR-10 is not here and could not be downloaded: this demo draws its own pictures, ten" \
       "classes of simple shapes"
fi
echo "$what: $data"
run() { verb=$1; shift; "$tool" "$verb" --data "$data" "$@"; }

# ---- the model in the box ----------------------------------------------------------------------

if [ "$what" = CIFAR-10 ]; then
  say "half pictures, completed by a model of three hours"
  run sample --model examples/models/cifar10.safetensors --count 6 --completions 3 --scale 4 \
    --out "$out/box.png"
fi

# ---- palette, model, completions ---------------------------------------------------------------

say "a palette of 512 colours"
run palette --side 16 --pixels 500000 --out "$out/palette.npy"

# a third of what is left is for the rest
minutes=$(awk -v left="$(left)" \
  'BEGIN { m = left * 0.66 / 60; m = m < 0.2 ? 0.2 : m; printf "%.2f", (m > 3 ? 3 : m) }')
say "pre-training for $minutes minutes: 6 layers of width 64, 256 pixels"
run pretrain --side 16 --layers 6 --heads 2 --width 64 --batch 16 --palette "$out/palette.npy" \
  --minutes "$minutes" --evaluations 6 --out "$out/model.safetensors"

say "completing half pictures"
run sample --model "$out/model.safetensors" --split test --count 8 --completions 4 --scale 5 \
  --out "$out/completions.png"

# ---- what it has learned -----------------------------------------------------------------------

say "nats a pixel, on pictures of the test set"
before=$(date +%s)
run eval --model "$out/model.safetensors" --split test --count 500 --json | tee "$out/eval.json"
eval_seconds=$(($(date +%s) - before + 1))

# a probe looks at three splits and then fits: three quarters of the time that is left will do
count=$(awk -v left="$(left)" -v s="$eval_seconds" \
  'BEGIN { n = int(0.75 * left * 500 / s / 3)
           print (n < 200 ? 200 : n > 5000 ? 5000 : n) }')
say "probing every depth on $count pictures of each split"
run probe --model "$out/model.safetensors" --count "$count" --layer all --json >"$out/probe.json"

# ---- the table ---------------------------------------------------------------------------------

say "$what, 16 x 16, $minutes minutes of training"
awk -F'[:,}]' '
  /nats_per_pixel/ {
    printf "  %.3f nats a pixel (%.3f bits) on test pictures; a new model: 6.238\n", $2, $4
  }
  /"layer"/ {
    gsub(/[" ]/, "", $2)
    if ($2 == "pixels") name = "raw pixels"; else name = "depth " $2
    if (!rows++) printf "\n  linear probe     val %%   test %%\n"
    printf "  %-12s %9.1f %8.1f\n", name, 100 * $4, 100 * $6
  }
  /best_layer/ { printf "  best, fitted on both: depth %d, test %.1f %%\n", $2, 100 * $4 }
' "$out/eval.json" "$out/probe.json" | tee "$out/table.txt"
echo
for picture in box.png palette.png model.svg completions.png; do
  [ ! -f "$out/$picture" ] || echo "  $out/$picture"
done
printf '  done in %d s\n' "$(passed)"
