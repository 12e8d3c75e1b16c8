#!/bin/sh
# tests/tool.sh [TOOL]: the command-line tool from outside. Every verb runs on small pictures that the
# tool draws itself; every bad input must give one sentence, status 1, and leave files as they were.
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
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' err out 2>/dev/null | head -20; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }

# holds NAME CONDITION...: about what earlier commands left, their output in `out` and `err` included
holds() { name=$1; shift; if "$@" >/dev/null 2>&1; then ok "$name"; else bad "$name"; fi; }

# check NAME COMMAND...: succeeds; runs NAME VERB...: the tool does
check() { name=$1; shift; if "$@" >out 2>err; then ok "$name"; else bad "$name (status $?)"; fi; }
runs() { name=$1; shift; check "$name" "$tool" "$@"; }

# refuses NAME WORDS VERB...: status 1, nothing on stdout, and one sentence that contains all WORDS
refuses() {
  name=$1 words=$2; shift 2
  "$tool" "$@" >out 2>err; status=$?
  if [ $status -ne 1 ] || [ -s out ] || [ "$(grep -c '' err)" -ne 1 ]; then
    bad "$name (status $status)"; return
  fi
  for word in $words; do
    grep -q -e "$word" err || { bad "$name (no '$word')"; return; }
  done
  ok "$name"
}

is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }
shape="--data shapes:300 --colours 16 --side 8 --layers 2 --width 16 --heads 2 --batch 4 --pixels 4000
       --eval-count 20 --rate 0.003"
big() { "$tool" "$@" --data shapes:300 --colours 16 --side 8 --preset tiny --batch 4 --eval-count 20; }
small() { verb=$1; shift; "$tool" $verb $shape "$@"; }

# ---- help ----------------------------------------------------------------------------------------

verbs="palette pretrain eval sample probe finetune classify features map plan info"
runs "help of the tool" --help
all=1
for verb in $verbs; do
  "$tool" $verb --help >out 2>err && grep -q "^  igpt $verb " out && [ ! -s err ] || all=0
done
holds "help of every verb, with an example" test $all = 1

# ---- the whole path, auto-regressive and BERT ----------------------------------------------------

runs "palette" palette --data shapes:300 --side 8 --colours 16 --out p.npy
holds "palette: a strip" is_png p.png
"$tool" palette --data shapes:300 --side 8 --colours 8 --out p8.npy >out 2>err
check "pretrain" small pretrain --steps 30 --palette p.npy --out ar.safetensors
holds "pretrain: the first loss is ln 16" grep -q "val 2.77259" out
holds "pretrain: curve" grep -q "^30," ar.csv
holds "pretrain: curve as SVG" grep -q "<svg" ar.svg
check "pretrain: BERT" small pretrain --steps 30 --palette p.npy --objective bert --out bert.safetensors
check "pretrain: by the clock" small pretrain --minutes 0.02 --out clock.safetensors
check "pretrain: augmented, linear, from given weights" small pretrain --model ar.safetensors --steps 3 \
  --augment cifar --schedule linear --out more.safetensors

data="--data shapes:300 --count 40"
runs "eval" eval --model ar.safetensors $data
runs "eval: BERT" eval --model bert.safetensors $data
runs "sample" sample --model ar.safetensors --data shapes:300 --count 2 --out s.png
holds "sample: a picture" is_png s.png
runs "sample: whole pictures" sample --model ar.safetensors --keep 0 --count 4 --top-k 5 --out s0.png
runs "sample: BERT fills" sample --model bert.safetensors --data shapes:300 --count 2 --out sb.png
runs "probe" probe --model ar.safetensors $data
holds "probe: a line a depth, and pixels" test "$(grep -c '^layer' out)" = 4
runs "probe: BERT votes, some depths" probe --model bert.safetensors $data --layer 0,2 --method sgd
runs "finetune" finetune --model ar.safetensors $data --batch 4 --epochs 2 --out fine.safetensors
runs "finetune: BERT, class loss alone" finetune --model bert.safetensors $data --batch 4 --steps 5 \
  --generative 0 --out fineb.safetensors
runs "classify" classify --model fine.safetensors $data
holds "classify: a line a picture" test "$(grep -c '0\.[0-9]*$' out)" -ge 30
runs "features" features --model ar.safetensors $data --layer 1,2 --out f.npy
holds "features: labels beside them" test -s f.labels.npy
runs "map" map --model ar.safetensors --data shapes:300 --count 3 --out m.png
holds "map: a picture" is_png m.png
runs "map: BERT" map --model bert.safetensors --data shapes:300 --count 2 --out mb.png
runs "plan" plan --preset S --batch 2
runs "info" info fine.safetensors
holds "info: the palette's name and the class head" sh -c 'grep -q p.npy out && grep -q score.weight out'

# ---- JSON ----------------------------------------------------------------------------------------

json() {                          # json NAME KEYS VERB...: every line parses, the last has KEYS
  name=$1 keys=$2; shift 2
  if ! "$@" --json >out 2>err; then bad "$name"; return; fi
  python3 - "$keys" out <<'PY' >err 2>&1 && ok "$name" || bad "$name"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[2])]
missing = [key for key in sys.argv[1].split() if key not in lines[-1]]
assert lines and not missing, missing
PY
}
if command -v python3 >/dev/null; then
  json "json: palette" "colours psnr" "$tool" palette --data shapes:300 --side 8 --colours 4 --out j.npy
  json "json: pretrain" "step train_nats val_nats tokens_per_s seconds" small pretrain --steps 4 --out j.safetensors
  json "json: eval" "nats_per_pixel bits_per_pixel images" "$tool" eval --model ar.safetensors $data
  json "json: sample" "out pictures" "$tool" sample --model ar.safetensors --keep 0 --count 1 --out j.png
  json "json: probe" "best_layer test_accuracy" "$tool" probe --model ar.safetensors $data
  json "json: finetune" "val test_accuracy" "$tool" finetune --model ar.safetensors $data --batch 4 --steps 3 --out j.safetensors
  json "json: classify" "picture class probability" "$tool" classify --model fine.safetensors $data
  json "json: features" "images layers width" "$tool" features --model ar.safetensors $data --out j.npy
  json "json: map" "picture nats_per_pixel" "$tool" map --model ar.safetensors --data shapes:300 --count 2 --out j.png
  json "json: plan" "parameters train_flops" "$tool" plan --preset S
  json "json: info" "objective palette" "$tool" info --model ar.safetensors
else
  skip "json lines" "there is no python3 to parse them"
fi

# ---- the same bits -------------------------------------------------------------------------------

small pretrain --steps 8 --seed 7 --workers 1 --micro 4 --out w1.safetensors >out 2>err
small pretrain --steps 8 --seed 7 --workers 2 --micro 1 --out w2.safetensors >out 2>err
small pretrain --steps 8 --seed 8 --workers 2 --out w3.safetensors >out 2>err
holds "one worker or two, four pictures at once or one: the same model" cmp w1.safetensors w2.safetensors
holds "another seed: another model" sh -c '! cmp -s w1.safetensors w3.safetensors'
"$tool" eval --model ar.safetensors $data --workers 1 --batch 1 >e1 2>err
"$tool" eval --model ar.safetensors $data --workers 2 --batch 7 >e2 2>err
holds "eval: the same number" cmp e1 e2

# A run that is interrupted (after its second line of results) and goes on makes the same files.
for objective in ar bert; do
  run="--objective $objective --augment cifar --steps 600 --evaluations 20 --seed 3"
  small pretrain $run --out whole.safetensors >out 2>err
  "$tool" pretrain $shape $run --out cut.safetensors >cut 2>err &
  pid=$!
  while [ "$(grep -c ^step cut)" -lt 2 ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
  kill -INT $pid
  wait $pid; status=$?
  if [ $status -ne 130 ]; then bad "Ctrl-C ($objective): status 130 and not $status"; continue; fi
  holds "Ctrl-C ($objective): says how to go on" grep -q -e "--resume cut.checkpoint" err
  holds "Ctrl-C ($objective): no model yet" test ! -e cut.safetensors
  check "resume ($objective)" small pretrain $run --resume cut.checkpoint --out cut.safetensors
  holds "resume ($objective): the same model, to the bit" cmp whole.safetensors cut.safetensors
  cut -d, -f1-3 whole.csv >a; cut -d, -f1-3 cut.csv >b
  holds "resume ($objective): the same curve" cmp a b
  mv cut.checkpoint $objective.checkpoint
  rm -f cut.*
done
refuses "resume: another batch" "batch 4 5" pretrain --data shapes:300 --batch 5 --seed 3 --resume ar.checkpoint --steps 600
refuses "resume: another seed" "seed 3 4" pretrain --data shapes:300 --batch 4 --seed 4 --resume ar.checkpoint --steps 600
refuses "resume: other pictures" "pictures 30" pretrain --data shapes:300 --count 30 --batch 4 --seed 3 --resume ar.checkpoint --steps 600
refuses "resume: the other objective" "objective ar bert" pretrain --data shapes:300 --batch 4 --seed 3 --objective bert --resume ar.checkpoint --steps 600

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
refuses "two lengths" "--steps --minutes" pretrain --data shapes:300 --side 8 --steps 3 --minutes 1
refuses "no model" "--model" eval --data shapes:300
refuses "heads that do not divide the width" "--heads 3 --width 16" pretrain --data shapes:300 --heads 3 --width 16
refuses "a missing folder" "nowhere" eval --model ar.safetensors --data nowhere
refuses "a missing model" "nothing.safetensors" eval --model nothing.safetensors $data
echo "this is not a model, and it says so at some length" >text.safetensors
refuses "not a safetensors file" "text.safetensors" eval --model text.safetensors $data
head -c 2000 ar.safetensors >short.safetensors
refuses "a truncated model" "short.safetensors" eval --model short.safetensors $data
refuses "a palette of another size" "p8.npy 8 16" eval --model ar.safetensors --palette p8.npy $data
refuses "not a palette" "f.npy" eval --model ar.safetensors --palette f.npy $data
refuses "a model of the other objective" "ar.safetensors objective bert" eval --model ar.safetensors --objective bert $data
refuses "a BERT model asked for whole pictures" "bert.safetensors" sample --model bert.safetensors --keep 0
refuses "a model without a class head" "ar.safetensors head" classify --model ar.safetensors $data
refuses "a depth that is not there" "--layer 3 2" probe --model ar.safetensors $data --layer 1,3
refuses "no folder for the result" "nowhere" map --model ar.safetensors $data --out nowhere/m.png

mkdir batches
head -c 3073 /dev/zero >batches/data_batch_1.bin
head -c 6000 /dev/zero >batches/test_batch.bin
refuses "a truncated batch file" "test_batch.bin 6000 3073" eval --model ar.safetensors --data batches

# pictures that cannot be read are named, skipped and counted; when none can, that is an error
mkdir -p folder/a folder/b empty/a
for i in 1 2 3 4 5 6 7 8 9; do cp s.png folder/a/$i.png; cp m.png folder/b/$i.png; done
: >folder/a/zero.jpg
head -c 300 /dev/urandom >folder/b/noise.jpg
cp folder/a/zero.jpg empty/a
runs "unreadable pictures are skipped" probe --model ar.safetensors --data folder --layer 1
holds "... named and counted" sh -c 'grep -q zero.jpg err && grep -q noise.jpg err && grep -q "^skipped [12] pictures" err'
"$tool" eval --model ar.safetensors --data empty >out 2>err
holds "no picture can be read" sh -c "[ $? = 1 ] && [ ! -s out ] && tail -1 err | grep -q '^igpt: .*empty'"
refuses_side() { "$tool" palette --data folder --side 1000 --out never.npy >out 2>err; [ $? = 1 ] && [ ! -e never.npy ]; }
holds "pictures smaller than the side" refuses_side

# outputs stay as they were
echo old >old.npy; cp old.npy old.copy
refuses "a failing run ..." "nowhere" palette --data nowhere --out old.npy
holds "... leaves its output as it was" cmp old.npy old.copy
cp old.copy old.safetensors
(trap '' XFSZ; ulimit -f 40; big pretrain --steps 2 --out old.safetensors >out 2>err); status=$?
holds "a file that cannot grow: status 1" test $status = 1
holds "... one sentence" sh -c '[ "$(grep -c ^igpt: err)" = 1 ] && grep -q old.checkpoint err'
holds "... the old model stays, nothing else does" sh -c 'cmp -s old.safetensors old.copy && [ ! -e old.checkpoint ] && ! ls old.*tmp* 2>/dev/null'
mkdir full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
  mounted=$work/full
  cp old.copy full/model.safetensors
  big pretrain --steps 2 --out full/model.safetensors >out 2>err; status=$?
  holds "a full disk" sh -c "[ $status = 1 ] && grep -q 'full/model.checkpoint.*space' err && cmp -s full/model.safetensors old.copy"
else
  skip "a full disk" "mount is not permitted here"
fi

# ---- a Hugging Face folder -----------------------------------------------------------------------

mkdir hf
cp ar.safetensors hf/model.safetensors
config='"n_embd": 16, "n_layer": 2, "n_positions": 64, "vocab_size": 17, "layer_norm_epsilon": 1e-05, "activation_function":'
echo "{\"model_type\": \"imagegpt\", \"other\": {\"n_head\": 9}, $config \"quick_gelu\", \"n_head\": 2}" >hf/config.json
runs "a Hugging Face folder" eval --model hf $data
echo "{$config \"quick_gelu\", \"other\": {\"n_head\": 9}}" >hf/config.json
refuses "... without a field" "config.json n_head" eval --model hf $data
echo "{$config \"gelu\", \"n_head\": 2}" >hf/config.json
refuses "... of another activation" "config.json gelu quick_gelu" eval --model hf $data
echo "{$config \"quick_gelu\", \"n_head\": 4}" >hf/config.json
refuses "... that contradicts its tensors" "heads 4 2" eval --model hf $data
echo "{$config" >hf/config.json
refuses "... whose JSON ends early" "config.json JSON" eval --model hf $data
rm hf/config.json
refuses "... without config.json" "config.json" eval --model hf $data

echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
