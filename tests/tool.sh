#!/bin/sh
# tests/tool.sh [TOOL]: the command-line tool from outside. Every verb runs on small pictures that
# the tool draws itself; every bad input must give one sentence, status 1, and leave files as they
# were.
set -u
tool=${1:-build/igpt}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac
work=$(mktemp -d "${TMPDIR:-/tmp}/igpt-tool.XXXXXX") || exit 1
mounted=
clean() { [ -z "$mounted" ] || umount "$mounted"; rm -rf "$work"; }
trap clean EXIT
trap 'exit 1' INT TERM
cd "$work" || exit 1

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok      $1"; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }
bad() {
  failed=$((failed + 1))
  echo "FAILED  $1"
  head -20 err out 2>/dev/null | sed 's/^/        /'
}

# holds NAME CONDITION...: about what earlier commands left, in `out` and `err` too
holds() { name=$1; shift; if "$@" >/dev/null 2>&1; then ok "$name"; else bad "$name"; fi; }

# check NAME COMMAND...: succeeds; runs NAME VERB...: the tool does
check() { name=$1; shift; if "$@" >out 2>err; then ok "$name"; else bad "$name (status $?)"; fi; }
runs() { name=$1; shift; check "$name" "$tool" "$@"; }

# contains FILE WORD...: all of them
contains() { file=$1; shift; for word; do grep -q -e "$word" "$file" || return 1; done; }

# refuses NAME WORDS VERB...: status 1, nothing on stdout, and one sentence that contains all WORDS
refuses() {
  name=$1 words=$2; shift 2
  "$tool" "$@" >out 2>err; status=$?
  if [ $status -ne 1 ] || [ -s out ] || [ "$(grep -c '' err)" -ne 1 ]; then
    bad "$name (status $status)"
  elif contains err $words; then
    ok "$name"
  else
    bad "$name (not all of: $words)"
  fi
}

is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }

drawn="--data shapes:300"
data="$drawn --count 40"
shape="$drawn --colours 16 --side 8 --layers 2 --width 16 --heads 2 --batch 4 --pixels 4000
       --eval-count 20 --rate 0.003"
small() { verb=$1; shift; "$tool" $verb $shape "$@"; }

# ---- help ----------------------------------------------------------------------------------------

runs "help of the tool" --help
all=1
for verb in palette pretrain eval sample probe finetune classify features map plan info; do
  "$tool" $verb --help >out 2>err && grep -q "^  igpt $verb " out && [ ! -s err ] || all=0
done
holds "help of every verb, with an example" test $all = 1

# ---- the whole path, auto-regressive and BERT ----------------------------------------------------

ar="--model ar.safetensors"
bert="--model bert.safetensors"
runs "palette" palette $drawn --side 8 --colours 16 --out p.npy
holds "palette: a strip" is_png p.png
check "pretrain" small pretrain --steps 30 --palette p.npy --out ar.safetensors
holds "pretrain: the first loss is ln 16" grep -q "val 2.77259" out
holds "pretrain: curve" grep -q "^30," ar.csv
holds "pretrain: curve as SVG" grep -q "<svg" ar.svg
check "pretrain: BERT" small pretrain --steps 30 --palette p.npy --objective bert \
  --out bert.safetensors
check "pretrain: by the clock" small pretrain --minutes 0.02 --out clock.safetensors
check "pretrain: augmented, linear, from given weights" small pretrain $ar --steps 3 \
  --augment cifar --schedule linear --out more.safetensors
check "pretrain: random crops" small pretrain --steps 3 --augment crop --out more.safetensors

runs "eval" eval $ar $data
runs "eval: BERT" eval $bert $data
runs "sample" sample $ar $drawn --count 2 --out s.png
holds "sample: a picture" is_png s.png
runs "sample: whole pictures" sample $ar --keep 0 --count 4 --top-k 5 --out s0.png
runs "sample: BERT fills" sample $bert $drawn --count 2 --out sb.png
runs "probe" probe $ar $data
holds "probe: a line a depth, and pixels" test "$(grep -c '^layer' out)" = 4
runs "probe: BERT votes, some depths" probe $bert $data --layer 0,2 --method sgd
runs "finetune" finetune $ar $data --batch 4 --epochs 2 --out fine.safetensors
runs "finetune: BERT, class loss alone" finetune $bert $data --batch 4 --steps 5 --generative 0 \
  --out fineb.safetensors
runs "classify" classify --model fine.safetensors $data
holds "classify: a line a picture" test "$(grep -c '0\.[0-9]*$' out)" -ge 30
runs "features" features $ar $data --layer 1,2 --out f.npy
holds "features: labels beside them" test -s f.labels.npy
runs "map" map $ar $drawn --count 3 --out m.png
holds "map: a picture" is_png m.png
runs "map: BERT" map $bert $drawn --count 2 --out mb.png
runs "plan" plan --preset S --batch 2
runs "info" info fine.safetensors
holds "info: the palette's name and the class head" contains out p.npy score.weight

# ---- JSON ----------------------------------------------------------------------------------------

# json NAME KEYS COMMAND...: every line of the output parses, and the last has the KEYS
json() {
  name=$1 keys=$2; shift 2
  if ! "$@" --json >out 2>err; then bad "json: $name"; return; fi
  python3 - "$keys" out <<'PY' >err 2>&1 && ok "json: $name" || bad "json: $name"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[2])]
missing = [key for key in sys.argv[1].split() if key not in lines[-1]]
assert lines and not missing, missing
PY
}
if command -v python3 >/dev/null; then
  json palette "colours psnr" "$tool" palette $drawn --side 8 --colours 4 --out j.npy
  json pretrain "step train_nats val_nats tokens_per_s seconds" \
    small pretrain --steps 4 --out j.safetensors
  json eval "nats_per_pixel bits_per_pixel images" "$tool" eval $ar $data
  json sample "out pictures" "$tool" sample $ar --keep 0 --count 1 --out j.png
  json probe "best_layer test_accuracy" "$tool" probe $ar $data
  json finetune "val test_accuracy" \
    "$tool" finetune $ar $data --batch 4 --steps 3 --out j.safetensors
  json classify "picture class probability" "$tool" classify --model fine.safetensors $data
  json features "images layers width" "$tool" features $ar $data --out j.npy
  json map "picture nats_per_pixel" "$tool" map $ar $drawn --count 2 --out j.png
  json plan "parameters train_flops" "$tool" plan --preset S
  json info "objective palette" "$tool" info $ar
else
  skip "json lines" "there is no python3 to parse them"
fi

# ---- the same bits -------------------------------------------------------------------------------

small pretrain --steps 8 --seed 7 --workers 1 --out w1.safetensors >out 2>err
small pretrain --steps 8 --seed 7 --workers 2 --out w2.safetensors >out 2>err
small pretrain --steps 8 --seed 8 --workers 2 --out w3.safetensors >out 2>err
holds "one worker or two: the same model" cmp w1.safetensors w2.safetensors
holds "another seed: another model" sh -c '! cmp -s w1.safetensors w3.safetensors'
"$tool" eval $ar $data --workers 1 --batch 1 >e1 2>err
"$tool" eval $ar $data --workers 2 --batch 7 >e2 2>err
holds "eval: the same number, for any batch" cmp e1 e2

# interrupted WHAT VERB OPTION...: a run that is stopped after its second line of results and goes
# on makes the same files as one that never stopped
interrupted() {
  what=$1; shift
  rm -f whole.* cut.*
  "$tool" "$@" --out whole.safetensors >out 2>err
  "$tool" "$@" --out cut.safetensors >cut 2>err &
  pid=$!
  while [ "$(grep -c '^step' cut)" -lt 2 ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
  kill -INT $pid
  wait $pid; status=$?
  if [ $status -ne 130 ]; then bad "Ctrl-C ($what): status 130 and not $status"; return; fi
  holds "Ctrl-C ($what): says how to go on" contains err "--resume cut.checkpoint"
  check "resume ($what)" "$tool" "$@" --resume cut.checkpoint --out cut.safetensors
  holds "resume ($what): the same model, to the bit" cmp whole.safetensors cut.safetensors
  cut -d, -f1-3 whole.csv >a
  cut -d, -f1-3 cut.csv >b
  holds "resume ($what): the same curve" cmp a b
}
long="--steps 600 --evaluations 20 --seed 3"
interrupted ar pretrain $shape $long --augment cifar
mv cut.checkpoint ar.checkpoint
interrupted BERT pretrain $shape $long --objective bert
interrupted finetune finetune $ar $drawn --batch 4 --eval-count 20 $long --patience 20

resumed="--batch 4 --steps 600 --resume ar.checkpoint"
refuses "resume: another batch" "batch 4 5" pretrain $drawn --seed 3 --batch 5 --steps 600 \
  --resume ar.checkpoint
refuses "resume: another seed" "seed 3 4" pretrain $drawn --seed 4 $resumed
refuses "resume: other pictures" "pictures 30" pretrain $drawn --seed 3 --count 30 $resumed
refuses "resume: the other objective" "objective ar bert" pretrain $drawn --seed 3 $resumed \
  --objective bert
refuses "resume: a model" "ar.safetensors" pretrain $drawn --batch 4 --resume ar.safetensors

# ---- bad input -----------------------------------------------------------------------------------

refuses "no such verb" "pretrian pretrain" pretrian
refuses "no such option" "--bach --batch" pretrain --bach 3
refuses "an option of another verb" "eval --keep sample" eval --keep 0.5
refuses "an option without its value" "--steps value" pretrain --steps
refuses "an option twice" "--seed twice" eval --seed 1 --seed 2
refuses "a number with a tail" "--steps 12x 1" pretrain --steps 12x
refuses "a number out of range" "--keep 1.5 1" sample --keep 1.5
refuses "not a number" "--rate nan" pretrain --rate nan
refuses "not one of the words" "--preset huge tiny" pretrain --preset huge
refuses "an argument without a name" "extra" eval extra
refuses "two lengths" "--steps --minutes" pretrain $drawn --side 8 --steps 3 --minutes 1
refuses "no model" "--model" eval $drawn
refuses "heads that do not divide the width" "--heads 3 --width 16" \
  pretrain $drawn --heads 3 --width 16
refuses "a missing folder" "nowhere" eval $ar --data nowhere
refuses "a missing model" "nothing.safetensors" eval --model nothing.safetensors $data
echo "this is not a model, and it says so at some length" >text.safetensors
refuses "not a safetensors file" "text.safetensors" eval --model text.safetensors $data
head -c 2000 ar.safetensors >short.safetensors
refuses "a truncated model" "short.safetensors" eval --model short.safetensors $data
"$tool" palette $drawn --side 8 --colours 8 --out p8.npy >out 2>err
refuses "a palette of another size" "p8.npy 8 16" eval $ar --palette p8.npy $data
refuses "not a palette" "f.npy" eval $ar --palette f.npy $data
refuses "a model of the other objective" "ar.safetensors objective bert" \
  eval $ar --objective bert $data
refuses "a BERT model asked for whole pictures" "bert.safetensors" sample $bert --keep 0
refuses "a model without a class head" "ar.safetensors head" classify $ar $data
refuses "a depth that is not there" "--layer 3 2" probe $ar $data --layer 1,3
refuses "no folder for the result" "nowhere" map $ar $data --out nowhere/m.png

mkdir batches
head -c 3073 /dev/zero >batches/data_batch_1.bin
head -c 6000 /dev/zero >batches/test_batch.bin
refuses "a truncated batch file" "test_batch.bin 6000 3073" eval $ar --data batches

# pictures that cannot be read are named, skipped and counted; when none can, that is an error
mkdir -p folder/a folder/b empty/a
for i in 1 2 3 4 5 6 7 8 9; do cp s.png folder/a/$i.png; cp m.png folder/b/$i.png; done
: >folder/a/zero.jpg
head -c 300 /dev/urandom >folder/b/noise.jpg
cp folder/a/zero.jpg empty/a
runs "unreadable pictures are skipped" probe $ar --data folder --layer 1
holds "... named and counted" contains err zero.jpg noise.jpg "^skipped [12] pictures"
runs "a folder's pictures are classified" classify --model fine.safetensors --data folder
holds "... by name" contains out "folder/[ab]/[1-9].png$"
"$tool" eval $ar --data empty >out 2>err; status=$?
tail -1 err >last
holds "no picture can be read" test $status = 1 -a ! -s out
holds "... says so" contains last "^igpt: .*empty"
"$tool" palette --data folder --side 1000 --out never.npy >out 2>err; status=$?
holds "pictures smaller than the side" test $status = 1 -a ! -e never.npy

# outputs stay as they were
echo old >old.npy
cp old.npy old.copy
refuses "a failing run ..." "nowhere" palette --data nowhere --out old.npy
holds "... leaves its output as it was" cmp old.npy old.copy
large="pretrain $drawn --colours 16 --side 8 --preset tiny --batch 4 --eval-count 20 --steps 2"
cp old.copy old.safetensors
(trap '' XFSZ; ulimit -f 40; "$tool" $large --out old.safetensors >out 2>err); status=$?
holds "a file that cannot grow: status 1" test $status = 1
holds "... one sentence" test "$(grep -c ^igpt: err)" = 1
holds "... that names it" contains err old.checkpoint
holds "... the old model stays" cmp old.safetensors old.copy
holds "... and no half of a file" sh -c '[ ! -e old.checkpoint ] && ! ls old.*tmp*'
mkdir full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
  mounted=$work/full
  cp old.copy full/m.safetensors
  "$tool" $large --out full/m.safetensors >out 2>err; status=$?
  holds "a full disk: status 1" test $status = 1
  holds "... one sentence" contains err "full/m.checkpoint.*space"
  holds "... the old model stays" cmp full/m.safetensors old.copy
else
  skip "a full disk" "mount is not permitted here"
fi

# ---- a Hugging Face folder -----------------------------------------------------------------------

mkdir hf
cp ar.safetensors hf/model.safetensors
# config HEADS ACTIVATION MORE: writes hf/config.json
config() {
  printf '{"n_embd": 16, "n_layer": 2, "n_positions": 64, "vocab_size": 17, %s' "$1" >hf/config.json
  printf '"layer_norm_epsilon": 1e-05, "activation_function": "%s"%s' "$2" "$3" >>hf/config.json
}
config '"other": {"n_head": 9}, "n_head": 2, ' quick_gelu '}'
runs "a Hugging Face folder" eval --model hf $data
config '"other": {"n_head": 9}, ' quick_gelu '}'
refuses "... without a field" "config.json n_head" eval --model hf $data
config '"n_head": 2, ' gelu '}'
refuses "... of another activation" "config.json gelu quick_gelu" eval --model hf $data
config '"n_head": 4, ' quick_gelu '}'
refuses "... that contradicts its tensors" "heads 4 2" eval --model hf $data
config '"n_head": 2, ' quick_gelu ''
refuses "... whose JSON ends early" "config.json JSON" eval --model hf $data
config '"n_head": 2, ' quick_gelu ', "scale_attn_weights": false}'
refuses "... with unscaled attention" "config.json scale_attn_weights false" eval --model hf $data
config '"n_head": 2, ' quick_gelu ', "scale_attn_by_inverse_layer_idx": true}'
refuses "... with attention scaled by depth" "config.json inverse_layer true" eval --model hf $data
config '"n_head": 2, ' quick_gelu ', "n_inner": 48}'
refuses "... with a narrower middle" "config.json n_inner 48 16" eval --model hf $data
config '"n_head": 2, ' quick_gelu ', "n_inner": null}'
runs "... with the usual one" eval --model hf $data
refuses "... against --heads" "config.json 2 4" eval --model hf --heads 4 $data
sed -i 's/"n_positions": 64/"n_positions": 1024/' hf/config.json
refuses "... with more positions than weights" "model.safetensors 32 8" eval --model hf $data
rm hf/config.json
refuses "... without config.json" "config.json" eval --model hf $data

echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
