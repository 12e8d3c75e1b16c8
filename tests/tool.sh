#!/bin/sh
# tests/tool.sh [TOOL]: the command-line tool from outside. Every verb runs on small pictures that
# the tool draws itself; every bad input must give one sentence, status 1, and leave files as they
# were.
set -u
tool=${1:-build/igpt}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac
root=$PWD
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

# lines FILE NUMBER PATTERN: so many lines hold it
lines() { [ "$(grep -Ec -e "$3" "$1")" = "$2" ]; }

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
shape="$drawn --colours 16 --side 8 --layers 2 --width 16 --heads 2 --batch 4 --eval-count 20
       --rate 0.003"
small() { verb=$1; shift; "$tool" $verb $shape "$@"; }

# ---- help ----------------------------------------------------------------------------------------

runs "help of the tool" --help
all=1
for verb in palette pretrain eval sample probe finetune classify features map plan info export; do
  "$tool" $verb --help >out 2>err && grep -q "^  igpt $verb " out && [ ! -s err ] || all=0
done
holds "help of every verb, with an example" test $all = 1
# says VERB WORD...: its help, whose lines are one here
says() {
  verb=$1; shift
  "$tool" $verb --help | tr -s ' \n' ' ' >out
  echo >>out
  contains out "$@"
}
holds "help: iterations of L-BFGS, and of SGD" says probe "(default: 1000)" "(default: 30)"
holds "help: eval hides something" says eval "--mask pixel|block:K|jigsaw:K BERT"
holds "... and features may not" says features "--mask pixel|block:K|jigsaw:K|none BERT"
holds "help: how many pictures sample takes" says sample "with fewer the default takes all"
holds "... and map" says map "--count N how many pictures, if there are so many"
"$tool" palette --help >out
holds "help: palettes have no presets" lines out 0 "preset|XL"

# ---- the whole path, auto-regressive and BERT ----------------------------------------------------

ar="--model ar.safetensors"
bert="--model bert.safetensors"
runs "palette" palette $drawn --side 8 --colours 16 --out p.npy
holds "palette: a strip" is_png p.png
cp p.png shown.png
runs "palette: a picture in its colours" palette $drawn --side 8 --colours 16 --out p.npy \
  --show shown.png
holds "... beside it" is_png p.show.png
refuses "... which a result would replace" "--show p.png p.npy" palette $drawn --side 8 --colours 16 \
  --out p.npy --show p.png
holds "... and does not" cmp -s p.png shown.png
refuses "... which is no picture" "p.npy" palette $drawn --side 8 --colours 16 --show p.npy
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
runs "pretrain: crops that take longer than the steps" pretrain $drawn --side 2 --colours 300 \
  --layers 1 --width 2 --augment crop --batch 256 --steps 20 --eval-count 1 --evaluations 1 \
  --workers 1 --out crops.safetensors
holds "... are a part of tokens/s" awk -F, 'END { exit !(20 * 256 * 4 / $4 > 0.6 * $5) }' crops.csv

runs "eval" eval $ar $data
runs "eval: BERT" eval $bert $data
runs "sample" sample $ar $drawn --count 2 --out s.png
holds "sample: a picture" is_png s.png
runs "sample: whole pictures" sample $ar --keep 0 --count 4 --top-k 5 --out s0.png
runs "sample: in a byte a weight" sample $ar $drawn --precision int8 --count 2 --out s8.png
runs "eval: in a byte a weight" eval $ar $data --precision int8
runs "plan: of that" plan --precision int8
runs "sample: BERT fills" sample $bert $drawn --count 2 --out sb.png
runs "probe" probe $ar $data
holds "probe: a line a depth, and pixels" test "$(grep -c '^layer' out)" = 4
runs "probe: BERT votes, some depths" probe $bert $data --layer 0,2 --method sgd
runs "probe: the colours alone" probe $ar $data --layer histogram,pixels,1
holds "... a line each" test "$(grep -c '^layer' out)" = 3
holds "... and the depth is the best" contains out "best layer by validation: 1 of 2"
runs "probe: depths together" probe $ar $drawn --layer 0,2 --together 2 --json
holds "... around the best" contains out '"first_layer": [01], "last_layer": [12], '
runs "probe: all depths together, if so many are asked for" probe $bert $data --together 9
holds "... all three" contains out "layers 0 to 2 together"
runs "probe: two labels a class" probe $ar $drawn --labels 2 --layer pixels
mv out labels0
runs "... others" probe $ar $drawn --labels 2 --layer pixels --seed 1
holds "... which are" sh -c 'contains() { grep -q "$1" "$2"; }
  contains "on --labels alone" out && ! cmp -s out labels0'
refuses "more labels than there are" "--labels 99 training" probe $ar $drawn --labels 99
refuses "pixels together" "--together pixels" probe $ar $drawn --layer pixels --together 2
check "pretrain: models kept on the way" small pretrain --steps 4 --evaluations 2 --snapshots \
  --palette p.npy --out kept.safetensors
holds "... the last is the whole one" cmp kept.4.safetensors kept.safetensors
holds "... the first is not" test -s kept.2.safetensors -a -s kept.0.safetensors
runs "finetune" finetune $ar $data --batch 4 --epochs 2 --out fine.safetensors
runs "finetune: BERT, class loss alone" finetune $bert $data --batch 4 --steps 5 --generative 0 \
  --out fineb.safetensors
runs "classify" classify --model fine.safetensors $data
holds "classify: a line a picture" test "$(grep -c '0\.[0-9]*$' out)" -ge 30
names="disc|ring|square|triangle|plus|star|crescent|heart|stripes|checks"
holds "classify: names of classes" grep -Eq "^ +[0-9]+  ($names) " out
runs "features" features $ar $data --layer 1,2 --out f.npy
holds "features: labels beside them" test -s f.labels.npy
runs "map" map $ar $drawn --count 3 --out m.png
holds "map: a picture" is_png m.png
runs "map: BERT" map $bert $drawn --count 2 --out mb.png
mkdir rank
for i in 1 2 3; do cp s.png rank/$i.png; done
cp s0.png "rank/odd, \"name\".png"
runs "map --score" map $ar --data rank --score --count 2 --out rank.png
holds "... a picture" is_png rank.png
holds "... a line a picture, and a header" test "$(grep -c '' rank.csv)" = 5
holds "... the names, where CSV needs it in quotes" contains rank.csv 'rank/1.png$' \
  '"rank/odd, ""name"".png"$'
holds "... in order" sh -c 'cut -d, -f2 rank.csv | tail -n +2 | sort -cn'
holds "... equal pictures score the same" sh -c \
  '[ $(grep "rank/[123].png" rank.csv | cut -d, -f2,3 | uniq | wc -l) = 1 ]'
"$tool" eval $ar --data rank --json >out 2>err
holds "... the mean is that of eval" awk -F'[,:]' 'NR == FNR { if (FNR > 1) sum += $2; next }
  { d = sum / 4 - $2; exit !(d < 1e-5 && d > -1e-5) }' rank.csv out
runs "map --score: BERT, all of a part" map $bert $drawn --split val --score --out brank.png
holds "... each is ranked" contains out "27 pictures"
refuses "map --score, its table's name" "r.csv" map $ar --data rank --score --out r.csv
check "pretrain: squares are hidden" small pretrain --steps 3 --palette p.npy --objective bert \
  --mask block:3 --out block.safetensors
check "pretrain: patches change places" small pretrain --steps 3 --palette p.npy --objective bert \
  --mask jigsaw:4 --out jigsaw.safetensors
runs "eval: hides what the model was trained with" eval --model block.safetensors $data
mv out same
"$tool" eval --model block.safetensors $data --mask block:3 >out 2>err
holds "... which is the same" cmp same out
"$tool" eval --model block.safetensors $data --mask pixel >out 2>err
holds "... and not that" sh -c '[ -s out ] && ! cmp -s same out'
runs "features: of shuffled patches" features --model jigsaw.safetensors $data --out shuffled.npy
runs "... and of none" features --model jigsaw.safetensors $data --mask none --out whole.npy
holds "... which are others" sh -c '! cmp -s shuffled.npy whole.npy'
refuses "resume: another mask" "jigsaw.checkpoint --mask.is.jigsaw:4 block:2" pretrain $drawn \
  --resume jigsaw.checkpoint --mask block:2
for mask in block block: block:0 jigsaw:x block:2x pixels; do
  refuses "no such mask: $mask" "--mask $mask block:K" pretrain $drawn --objective bert --mask $mask
done
refuses "no such mask of eval" "--mask pixels jigsaw:K,.K" eval $bert $data --mask pixels
refuses "a mask for an AR model" "--mask AR" eval $ar $data --mask pixel
refuses "a jigsaw that does not fit" "jigsaw:3 8" eval $bert $data --mask jigsaw:3
refuses "nats of nothing" "--mask none" eval $bert $data --mask none
runs "export: what is hidden stays known" export jigsaw.safetensors --out j.safetensors
holds "... as a note" grep -aq 'igpt.tool.mask":"jigsaw:4"' j.safetensors
runs "plan" plan --preset S --batch 2
runs "export" export fine.safetensors --out small.safetensors
holds "export: little more than half the bytes" test \
  $(wc -c <small.safetensors) -lt $(($(wc -c <fine.safetensors) * 3 / 4))
"$tool" classify --model fine.safetensors $data >all.txt 2>err
"$tool" classify --model small.safetensors $data >half.txt 2>err
holds "export: classifies, by the classes' names" sh -c 'cut -d" " -f1-2 all.txt | sort >a.txt
  cut -d" " -f1-2 half.txt | sort >h.txt; [ $(comm -12 a.txt h.txt | wc -l) -ge 36 ]'
runs "the model in the box" eval --model "$root/examples/models/cifar10.safetensors" $drawn --count 3
holds "... expects more of shapes than a uniform guess" awk '{ exit !($1 > 0 && $1 < 4) }' out
runs "... that of BERT" eval --model "$root/examples/models/cifar10-bert.safetensors" $drawn --count 20
holds "... too" awk '{ exit !($1 > 0 && $1 < 5) }' out
runs "info" info fine.safetensors
holds "info: the palette's name and the class head" contains out p.npy score.weight

# ---- plain pictures ------------------------------------------------------------------------------

mkdir plain one
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cp s.png plain/$i.png; done
cp s.png one/1.png
runs "a plain folder" classify --model fine.safetensors --data plain
holds "... is looked at as a whole, in names of classes" lines out 12 "^($names) .*plain/"
runs "... but for --split test" classify --model fine.safetensors --data plain --split test
holds "... which is a tenth" lines out 1 plain/
runs "a folder of one picture" classify --model fine.safetensors --data one
holds "... a line" lines out 1 one/1.png
runs "... eval" eval $ar --data one
holds "... says what it took" contains out "one, all: 1 picture"
runs "... map" map $ar --data one --out one.map.png
runs "... sample takes those there are" sample $ar --data plain --out plain.png
holds "... all of them of 12, if so many are asked for" contains out "32 pictures"
runs "... and one of one" sample $ar --data one --out plain.png
runs "sample: the nearest training pictures" sample $ar --data plain --keep 0 --count 3 --nearest \
  --out plain.png
holds "... of a held-out copy of one is that, of no distance" contains out \
  "picture 2: the nearest training picture is" "of held-out pictures: 0.0$"
holds "... and of drawn ones another" awk '/^median/ { exit !($2 > 1) }' out
refuses "... of whole pictures" "--nearest --keep 0.5" sample $ar --data plain --nearest
(ulimit -t 1; "$tool" sample $ar --data nowhere --keep 0 --count 10000 --scale 1 --nearest \
  --workers 1 >out 2>err); status=$?
holds "... of no pictures: said before an hour of drawing" test $status = 1 -a -s err
refuses "... but not more than are asked for" "--count 13 12" sample $ar --data plain --count 13
runs "--split all, of a set with parts" eval $ar $drawn --split all
holds "... is all" contains out "300 pictures"

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
  json "probe, pixels alone" "best_layer test_accuracy" "$tool" probe $ar $data --layer pixels
  json "palette, not converged" "colours converged" \
    "$tool" palette $drawn --side 8 --colours 16 --iterations 1 --out j.npy
  mkdir latin
  cp s.png "$(printf 'latin/\377\351\303\251.png')"
  json "classify, a name that is not UTF-8" "file class" \
    "$tool" classify --model fine.safetensors --data latin
  holds "... its other letters stay" contains out "ufffd.ufffd$(printf '\303\251').png"
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

# started FILE: the run in the background has printed a line of results into it
started() {
  while ! grep -qs '^step' "$1" && kill -0 $pid 2>/dev/null; do sleep 0.02; done
}

# interrupted WHAT VERB OPTION...: a run that is stopped after its second line of results and goes
# on makes the same files as one that never stopped
interrupted() {
  what=$1; shift
  rm -f whole.* cut.* cut
  "$tool" "$@" --out whole.safetensors >out 2>err
  "$tool" "$@" --out cut.safetensors >cut 2>err &
  pid=$!
  while ! [ "$(grep -cs '^step' cut)" -ge 2 ] 2>/dev/null && kill -0 $pid 2>/dev/null; do
    sleep 0.02
  done
  for again in 1 2 3 4 5; do kill -INT $pid 2>/dev/null; sleep 0.003; done   # one is enough
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
interrupted ar pretrain $shape $long --pixels 4000 --augment cifar
mv cut.checkpoint ar.checkpoint
interrupted BERT pretrain $shape $long --objective bert
runs "finetune: no patience" finetune $ar $data --steps 20 --evaluations 20 --patience 1 \
  --rate 1e-9 --out tired.safetensors
holds "... ends after two looks" lines tired.csv 2 "^[0-9]"
cp tired.csv tired.copy
runs "... for good" finetune $ar $data --evaluations 20 --patience 1 --resume tired.checkpoint
holds "... and nothing is added to its curve" cmp tired.csv tired.copy
check "finetune: a rate that moves nothing" "$tool" finetune $ar $data --steps 1 --rate 1e-9 \
  --eval-count 1 --out still.safetensors
holds "... saves what it has" test -s still.safetensors
holds "... and counts no accuracy that it has not seen" lines out 0 "^step +0 "
cp ar.safetensors still.safetensors
"$tool" finetune $ar $data --steps 1 --rate 1e-9 --out still.safetensors >out 2>err
runs "... over an older file" info still.safetensors
holds "... which it replaces" contains out "10 classes"
interrupted finetune finetune $ar $drawn --batch 24 --eval-count 20 $long --patience 20

cp cut.safetensors best.safetensors
tune="finetune $ar $drawn --batch 24 --eval-count 20 --evaluations 20 --patience 20"
rm cut.svg
runs "resume: a finished run" $tune --resume cut.checkpoint
holds "... redraws its curve" test -s cut.svg
holds "... and keeps its best model" cmp cut.safetensors best.safetensors
cp ar.safetensors cut.safetensors
refuses "resume: another model where the best was" "cut.safetensors 30 steps" \
  $tune --resume cut.checkpoint
rm cut.safetensors
refuses "resume: no best model" "cut.safetensors best" $tune --resume cut.checkpoint
refuses "resume: in other files" "cut.checkpoint other.safetensors other.checkpoint" \
  $tune --resume cut.checkpoint --out other.safetensors
refuses "resume: a checkpoint of finetune" "cut.checkpoint finetune pretrain" \
  pretrain $drawn --resume cut.checkpoint
refuses "resume: a checkpoint of pretrain" "ar.checkpoint pretrain finetune" \
  finetune $ar $drawn --resume ar.checkpoint

# a step that takes long is not waited for, and leaves no trace
bare="$drawn --colours 16 --side 8 --pixels 4000 --eval-count 20"

# goes_on NAME VERB OPTION...: by the command that it prints when it is stopped
goes_on() {
  name=$1; shift
  rm -f cut
  "$tool" "$@" --steps 800 --eval-count 5 --out cut.safetensors >cut 2>err &
  pid=$!
  started cut
  kill -INT $pid
  wait $pid
  grep -e --resume err >again
  check "$name" sh -c '[ -s again ] && sh again'
}
few="--data shapes:30 --side 8 --layers 1 --width 16 --batch 4 --colours 512 --pixels 20"
goes_on "Ctrl-C (fewer colours than were asked for): the printed command goes on" pretrain $few
goes_on "Ctrl-C (given weights): the printed command goes on" pretrain $drawn $ar --batch 4
holds "... and does not give them again" lines again 0 "--model"
runs "pretrain: fewer colours than are asked for" pretrain $few --steps 1 --out few.safetensors
"$tool" info few.safetensors >out 2>err
number=$(sed -n 's/.* pixels, \([0-9]*\) colours.*/\1/p' out)
holds "a palette is named after the colours it has" sh -c \
  "[ $number -le 20 ] && grep -q 'k-means $number,' out"
refuses "resume: fewer colours than there are" "few.checkpoint --colours 2" \
  pretrain --data shapes:30 --colours 2 --resume few.checkpoint
refuses "resume: other pixels" "few.checkpoint --pixels.is.20, 30" \
  pretrain --data shapes:30 --pixels 30 --resume few.checkpoint
refuses "resume: pixels of a run that has none" "kept.checkpoint no.--pixels" \
  pretrain $drawn --pixels 30 --resume kept.checkpoint
refuses "resume: other weights" "few.checkpoint --model ar.safetensors" \
  pretrain --data shapes:30 $ar --resume few.checkpoint
slow="pretrain $bare --layers 4 --width 32 --batch 60000 --evaluations 1"
rm -f cut
"$tool" $slow --steps 2 --out "$work/it's slow.safetensors" >cut 2>err &
pid=$!
started cut
sleep 0.2
kill -INT $pid
wait $pid; status=$?
holds "Ctrl-C within a step: status 130" test $status = 130
holds "... the state before it" contains err "after step 0;"
grep -e --resume err | sed 's/60000/4/' >again                # the whole one would take long
sh again >out 2>err
holds "... the printed command means what it says in a shell" \
  contains err "^igpt: .*it's slow.checkpoint: the run's --batch is 60000, and here it is 4"
"$tool" $slow --minutes 0.01 --out late.safetensors >out 2>err; status=$?
holds "a step that does not fit in --minutes: status 1" test $status = 1
holds "... one sentence" lines err 1 "^igpt: --minutes is 0.01.* 60000 pictures"
holds "... and no model" test ! -e late.safetensors

# a run needs no more than its checkpoint
brief="pretrain $bare --evaluations 20 --layers 2 --width 16 --steps 600 --seed 3 --batch 3
       --rate 0.002 --schedule linear --warmup 7 --augment cifar --weight-decay 0.01 --clip 2"
"$tool" $brief --out whole.safetensors >out 2>err
rm -f cut
"$tool" $brief --out cut.safetensors >cut 2>err &
pid=$!
started cut
kill -INT $pid
wait $pid
runs "resume: without the options" pretrain $drawn --eval-count 20 --evaluations 20 \
  --resume cut.checkpoint
holds "... the same model" cmp whole.safetensors cut.safetensors
go="pretrain $drawn --resume ar.checkpoint"
refuses "resume: another rate" "ar.checkpoint --rate.is.0.003, 0.001" $go --rate 0.001
refuses "resume: another preset" "ar.checkpoint 2.layers --preset.S 24" $go --preset S
refuses "resume: another shape" "ar.checkpoint 2.layers --layers 7" $go --layers 7
refuses "resume: another schedule" "ar.checkpoint --schedule cosine linear" $go --schedule linear
refuses "resume: a warm-up" "ar.checkpoint --warmup 5" $go --warmup 5
refuses "resume: another augmentation" "ar.checkpoint --augment cifar none" $go --augment none
refuses "resume: weight decay" "ar.checkpoint --weight-decay 0 0.1" $go --weight-decay 0.1
refuses "resume: another clip" "ar.checkpoint --clip 1 2" $go --clip 2
refuses "resume: another micro-batch" "ar.checkpoint --micro 4 1" $go --micro 1
refuses "resume: another instruction set" "ar.checkpoint --isa generic" $go --isa generic
refuses "resume: fewer steps" "ar.checkpoint --steps 600 50" $go --steps 50
refuses "resume: another kind of length" "ar.checkpoint --steps.600 --minutes.1" $go --minutes 1

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
refuses "two lengths, before anything is read" "--steps --epochs" \
  pretrain --data nowhere --steps 3 --epochs 1
refuses "no model" "--model" eval $drawn
refuses "to train bytes" "INT8" pretrain $bare --precision int8 --steps 1
refuses "a palette called as its picture" "q.png" palette $drawn --out q.png
for end in csv svg checkpoint; do
  refuses "a model called as its .$end" "q.$end" pretrain $drawn --steps 1 --out q.$end
done
refuses "another shape than the model's" "ar.safetensors 2 --layers 7" \
  pretrain $drawn $ar --layers 7 --width 64
refuses "another width" "ar.safetensors 16 --width 64" pretrain $drawn $ar --width 64
refuses "other colours" "ar.safetensors 16 --colours 8" pretrain $drawn $ar --colours 8
"$tool" palette $drawn --side 8 --colours 16 --seed 9 --out other.npy >out 2>err
refuses "another palette of the same size" "ar.safetensors p.npy other.npy" \
  eval $ar $data --palette other.npy
refuses "completions of nothing" "--completions 3 --keep" sample $ar --keep 0 --completions 3
refuses "a split of nothing" "--split train --keep" sample $ar --keep 0 --split train
refuses "... with the nearest pictures, too" "--split train --keep" sample $ar --keep 0 --nearest \
  $drawn --split train
refuses "pictures for nothing" "--data shapes:300 --keep --nearest" sample $ar --keep 0 $drawn
refuses "an AR model in rounds" "--rounds 3 AR" sample $ar $drawn --rounds 3
for verb in "probe $ar" "classify --model fine.safetensors" "finetune $ar --steps 1"; do
  refuses "votes of an AR model: ${verb%% *}" "--votes 3 AR" $verb $data --votes 3
done
runs "... but for the one that it has" classify --model fine.safetensors $data --votes 1
{ printf '\223NUMPY\001\000v\000'
  printf '%-117s\n' "{'descr': '<u2', 'fortran_order': False, 'shape': (40, 64), }"
  head -c 5120 /dev/zero; } >tokens.npy
begun="--side 8 --layers 1 --width 8 --batch 4 --steps 1 --eval-count 5 --pixels 4000"
refuses "k-means on tokens" "--pixels 4000 tokens.npy" pretrain --data tokens.npy --colours 4 $begun
refuses "k-means beside a model's colours" "--pixels 4000 --model" pretrain $drawn $ar --pixels 4000 \
  --steps 1
runs "pretrain: k-means beside a palette" pretrain $drawn --palette p.npy $begun \
  --out k.safetensors
holds "... is said to be none" lines err 1 "^--pixels is 4000.* 'p.npy'"
"$tool" pretrain --data shapes:30 --preset tiny --side 2 --colours 4 --steps 1 --out k.safetensors \
  >out 2>err
runs "pretrain: the defaults of a model" pretrain --data shapes:30 --model k.safetensors --steps 1 \
  --preset medium-cpu --layers 4 --width 64 --out l.safetensors
holds "... are those of its shape" contains out "batch 4 .* rate 0.005$"
runs "a little of the picture is a row" sample $ar $drawn --keep 0.01 --count 2 --completions 3 \
  --out k.png
holds "... and not nothing" contains out "6 pictures"
runs "the rounds of k-means" palette $drawn --side 8 --colours 16 --iterations 1 --out k.npy
holds "... that were too few" contains out "after 1 iterations.*not converged"
for verb in "classify --model fine.safetensors $data --json" "info $ar" "eval --help" --help; do
  "$tool" $verb >/dev/full 2>err; status=$?
  : >out
  holds "standard output is full: ${verb%% *}" test $status = 1 -a "$(grep -c '' err)" = 1
done
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
refuses "a BERT model asked for whole pictures" "--keep 0 bert.safetensors" sample $bert --keep 0
refuses "more pictures than can be written" "600 8 --scale 64" sample $ar --keep 0 --count 600 \
  --scale 64
cp ar.safetensors whole.safetensors
refuses "a model exported to itself" "--out whole.safetensors" export whole.safetensors \
  --out whole.safetensors
holds "... stays whole" cmp -s ar.safetensors whole.safetensors
for at in model.safetensors run.checkpoint kept.2.safetensors; do cp ar.safetensors $at; done
refuses "a model trained further over itself" "--model model.safetensors --out" pretrain $drawn \
  --model model.safetensors --batch 4 --steps 1
refuses "... over the one that lends its palette" "--palette model.safetensors --out" \
  pretrain $drawn --palette model.safetensors --side 8 --layers 1 --width 8 --batch 4 --steps 1
refuses "... a checkpoint over itself" "--model run.checkpoint run.safetensors" pretrain $drawn \
  --model run.checkpoint --batch 4 --steps 1 --out run.safetensors
refuses "... a model on the way over it" "--model kept.2.safetensors kept.safetensors" \
  pretrain $drawn --model kept.2.safetensors --batch 4 --steps 2 --snapshots --out kept.safetensors
holds "... which all stay" sh -c 'for at in model.safetensors run.checkpoint kept.2.safetensors; do
  cmp -s ar.safetensors $at || exit 1; done'
runs "resume: reads its own model" pretrain $drawn --palette kept.safetensors --snapshots \
  --resume kept.checkpoint
cp s.png read.png
cp tokens.npy read.labels.npy
cp tokens.npy read.npy
refuses "a map over its picture" "--data read.png --out" map $ar --data read.png --out ./read.png
refuses "samples over their picture" "--data read.png --out" sample $ar --data read.png \
  --out read.png
refuses "a palette's strip over the picture" "--data read.png --out.is.'read.npy'" palette \
  --data read.png --out read.npy
refuses "features over their tokens" "--data read.npy --out" features $ar --data read.npy \
  --out read.npy
refuses "... labels over them" "--data read.labels.npy --out" features $ar --data read.labels.npy \
  --out read.npy
refuses "a map over its palette" "--palette read.npy --out" map $ar $data --palette read.npy \
  --out read.npy
holds "... which all stay" sh -c 'cmp -s s.png read.png && cmp -s tokens.npy read.npy &&
  cmp -s tokens.npy read.labels.npy'
mkdir lent.hf
cp ar.safetensors lent.hf/model.safetensors
refuses "an export over its palette" "--palette lent.hf --hf" export ar.safetensors --hf lent.hf \
  --palette lent.hf/model.safetensors
refuses "an export of nothing" "--model" export --out nothing.safetensors
mkdir own.hf
cp ar.safetensors own.hf/model.safetensors
refuses "an export over its own folder" "--hf own.hf" export own.hf/model.safetensors --hf own.hf
holds "... which stays" cmp -s ar.safetensors own.hf/model.safetensors
refuses "a ranking too large to draw" "--scale 64" map $ar --score --data shapes:700 --count 700 \
  --scale 64
"$tool" pretrain --data shapes:30 --palette p.npy --side 32 --layers 1 --width 8 --batch 2 --steps 1 \
  --eval-count 2 --out k.safetensors >out 2>err
refuses "... of two rows of all pictures" "62 32 --scale 64" map --model k.safetensors --score \
  --data shapes:31 --count 31 --scale 64
refuses "a square too large, if one more row makes it so" "31 32 --scale 64" \
  sample --model k.safetensors --keep 0 --count 31 --scale 64
{ printf 'BM\0\0\0\0\0\0\0\0\076\0\0\0\050\0\0\0\077\102\017\0\025\0\0\0\001\0\001\0\0\0\0\0'
  printf '\0\0\0\0\0\0\0\0\0\0\0\0\002\0\0\0\0\0\0\0\0\0\0\0\377\377\377\0'
  head -c 2625000 /dev/zero; } >wide.bmp                      # two colours, 999999 x 21
refuses "a picture too large to be drawn twice" "wide.bmp 999999.x.21" palette $drawn --side 8 \
  --colours 4 --show wide.bmp --out w.npy
holds "... which is said before k-means" test ! -e w.npy
runs "pretrain: another seed" pretrain --data shapes:40 --seed 3 --steps 1 --palette p.npy \
  --side 8 --layers 1 --width 16 --batch 4 --out seed.safetensors
"$tool" eval --model seed.safetensors --data shapes:40 --split test >a.txt 2>err
"$tool" eval --model seed.safetensors --data shapes:40 --split test --seed 3 >b.txt 2>err
"$tool" eval --model ar.safetensors --data shapes:40 --split test --seed 3 >c.txt 2>err
"$tool" eval --model ar.safetensors --data shapes:40 --split test >d.txt 2>err
holds "... holds out what it did, whatever the seed" sh -c 'cmp a.txt b.txt && cmp c.txt d.txt'
runs "pretrain: a model's further training with another seed" pretrain --model seed.safetensors \
  --data shapes:40 --seed 4 --steps 1 --rate 1e-9 --batch 4 --out further.safetensors
"$tool" eval --model further.safetensors --data shapes:40 --split test >b.txt 2>err
"$tool" eval --model further.checkpoint --data shapes:40 --split test >c.txt 2>err
holds "... leaves out what it left out at first" sh -c 'cmp a.txt b.txt && cmp a.txt c.txt'
tune="finetune --data shapes:40"
$tool $tune --model seed.safetensors --batch 4 --steps 1 --out tuned.safetensors >out 2>err
again="pretrain --data shapes:40 --side 8 --layers 1 --width 16 --batch 4 --steps 1"
"$tool" $again --seed 4 --palette p.npy --out k.safetensors >out 2>err
refuses "resume: a model that holds out others" "tuned.checkpoint seed.3, --model 4" $tune \
  --model k.safetensors --resume tuned.checkpoint
"$tool" $again --seed 3 --palette other.npy --out k.safetensors >out 2>err
refuses "resume: a model of other colours" "tuned.checkpoint colour p.npy --model" $tune \
  --model k.safetensors --resume tuned.checkpoint
runs "resume: the model" $tune --model seed.safetensors --resume tuned.checkpoint
runs "... or the one that the run has made" $tune --model tuned.safetensors \
  --resume tuned.checkpoint
mkfifo pipe.png
refuses "a result that is no file" "--out pipe.png" map $ar $data --out pipe.png
mkdir taken.checkpoint
refuses "a checkpoint that cannot be written" "taken.checkpoint folder" pretrain $drawn --steps 1 \
  --out taken.safetensors
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

# the palette's error needs some pictures, not those of one part
mkdir -p parts/train/a parts/val/a parts/test/a
cp s.png parts/train/a/1.png
cp s.png parts/test/a/1.png
: >parts/val/a/1.png
runs "palette: no validation picture can be read" palette --data parts --side 8 --colours 8 \
  --out v.npy
holds "... it says whose error it tells" contains out "training pictures"
holds "... and why" contains err "parts"

# CIFAR-10 where `make demo` puts it
mkdir -p build/data/cifar-10-batches-bin
for name in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
  head -c 30730 /dev/zero >build/data/cifar-10-batches-bin/$name.bin
done
runs "CIFAR-10 in build/data" eval $ar
rm build/data/cifar-10-batches-bin/data_batch_3.bin
refuses "... without one of its files" "data_batch_3.bin missing" eval $ar
rm -r build

# the command of a table's head, "command: `build/igpt VERB ...` with", and the options of a row
sed -n '/^|.*command: `/{s/.*command: `build.igpt \([^`]*\)`.*/\1/;h;}
  /^|[^`]*| `--/{s/[^`]*`\([^`]*\)`.*/\1 --help/;G;s/\(.*\)\n\(.*\)/\2 \1/p;}' \
  "$root/examples/models/README.md" >rows
: >err
while read -r row; do "$tool" $row >out 2>>err; done <rows
holds "the cards' rows are commands as they stand" test "$(grep -c eval rows)" = 8 -a ! -s err
holds "README.md calls the tool where it is" test "$(grep -c '^igpt ' "$root/README.md")" = 0

# outputs stay as they were
echo old >old.npy
cp old.npy old.copy
refuses "a failing run ..." "nowhere" palette --data nowhere --out old.npy
holds "... leaves its output as it was" cmp old.npy old.copy
large="pretrain $drawn --colours 16 --side 8 --preset tiny --batch 4 --eval-count 20 --steps 2"
for end in safetensors csv svg; do cp old.copy old.$end; done
# old_stay FILE: the model and its curve are those from before
old_stay() {
  cmp old.copy "$1.safetensors" && cmp old.copy "$1.csv" && cmp old.copy "$1.svg" &&
    [ ! -e "$1.checkpoint" ] && [ -z "$(ls | grep -e '[.]new' -e '[.]tmp')" ]
}
(trap '' XFSZ; ulimit -f 40; "$tool" $large --out old.safetensors >out 2>err); status=$?
holds "a file that cannot grow: status 1" test $status = 1
holds "... one sentence" test "$(grep -c ^igpt: err)" = 1
holds "... that names it" contains err old.checkpoint
holds "... before the work" lines out 0 "^step"
holds "... old files stay, and no half of a new one" old_stay old
"$tool" pretrain $bare --layers 2 --width 16 --batch 4 --steps 2000 --rate 10 --weight-decay 10 \
  --warmup 0 --clip 0 --out old.safetensors >out 2>err; status=$?
if [ $status = 1 ]; then holds "a run that diverges leaves files as they were" old_stay old
else skip "a run that diverges" "it does not"; fi
mkdir full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
  mounted=$work/full
  for end in safetensors csv svg; do cp old.copy full/m.$end; done
  "$tool" $large --out full/m.safetensors >out 2>err; status=$?
  holds "a full disk: status 1" test $status = 1
  holds "... one sentence" contains err "full/m.checkpoint.*space"
  holds "... old files stay" old_stay full/m
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
printf '{"clusters": [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]}' >hf/preprocessor_config.json
"$tool" pretrain $drawn --side 8 --layers 1 --width 8 --steps 1 --palette hf/ --out k.safetensors \
  >out 2>err
holds "... with a slash: its palette has a name" contains out "palette hf;"
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
config '"n_head": 2, ' quick_gelu ', "n_inner": 4294967360}'
refuses "... whose middle is the right one past 2^32" "config.json n_inner" eval --model hf $data
config '"n_head": 2.5, ' quick_gelu '}'
refuses "... with half a head" "config.json n_head whole" eval --model hf $data
config '"n_head": 2x, ' quick_gelu '}'
refuses "... with more behind a number" "config.json n_head 2x" eval --model hf $data
config '"n_head": 2, "n_head": 2, ' quick_gelu '}'
refuses "... with a number twice" "config.json n_head 2 times" eval --model hf $data
config '"n_head": 2, ' quick_gelu ', "n_inner": null, "n_inner": 48}'
refuses "... with a null and a number" "config.json n_inner 2 times" eval --model hf $data
config '"n_head": 2, ' quick_gelu '} {'
refuses "... with more behind the JSON" "config.json JSON" eval --model hf $data
config '"n_head": 2, ' quick_gelu '}'
for clusters in '[[1, 1], [1, 1, 1, 1]]' '[[0x1p-2, 0, 0]]' '[[0, 0, 0],]' '[]'; do
  printf '{"clusters": %s}' "$clusters" >hf/preprocessor_config.json
  refuses "... with the colours $clusters" "preprocessor_config.json" pretrain $drawn --side 8 \
    --layers 1 --width 8 --steps 1 --palette hf --out k.safetensors
done
printf '{"clusters": [[0, 0, 0]], "clusters": [[1, 1, 1]]}' >hf/preprocessor_config.json
refuses "... with two palettes" "preprocessor_config.json clusters 2 times" pretrain $drawn \
  --side 8 --layers 1 --width 8 --steps 1 --palette hf --out k.safetensors
rm hf/preprocessor_config.json
config '"n_head": 2, ' quick_gelu ', "n_inner": null}'
runs "... with the usual one" eval --model hf $data
refuses "... against --heads" "config.json 2 4" eval --model hf --heads 4 $data
sed -i 's/"n_positions": 64/"n_positions": 1024/' hf/config.json
refuses "... with more positions than weights" "model.safetensors 32 8" eval --model hf $data
rm hf/config.json
refuses "... without config.json" "config.json" eval --model hf $data

# ... and one that the tool writes. What a Python program makes of it: tests/interop/hf.py.
runs "export --hf" export ar.safetensors --hf out.hf
holds "... the configuration" contains out.hf/config.json '"vocab_size": 17' '"n_positions": 64' \
  '"n_embd": 16' '"n_layer": 2' '"n_head": 2' '"resid_pdrop": 0.0' ForCausalImageModeling
holds "... the colours" lines out.hf/preprocessor_config.json 16 '^    \[-?[01].*, .*, .*\],?$'
runs "... eval" eval --model out.hf $data
mv out hf.out
"$tool" eval $ar $data >out 2>err
holds "... says what it says of the model" cmp out hf.out
runs "export --hf, a classifier" export fine.safetensors --hf fine.hf
holds "... is called one" contains fine.hf/config.json ForImageClassification '"2": "square"' \
  '"square": 2'
holds "... without the head of pixels" sh -c 'cd fine.hf
  ! grep -aq lm_head.weight model.safetensors && grep -aq score.weight model.safetensors'
"$tool" classify --model fine.hf $data >out 2>err
holds "... classifies, by the classes' names" cmp out all.txt
LC_ALL=C sed -i 's/igpt.tool.classes/igpt.tool.clashes/' fine.hf/model.safetensors
first=$(awk 'NR == 1 { print $2 }' all.txt)
sed -i "s/: \"$first\"/: \"a \\\\u25a0\"/" fine.hf/config.json
runs "... without a note of ours, by those of config.json" classify --model fine.hf $data
holds "... whatever letters they have" sh -c 'head -n 1 out | grep -q " a ■ "'
runs "export --hf, its other head" export fine.safetensors --hf fine.hf --head pixels
holds "... without the class head" sh -c \
  '! grep -aq score.weight fine.hf/model.safetensors && grep -q Causal fine.hf/config.json'
cp -r out.hf kept.hf
# kept: the folder is as it was
kept() { [ "$(ls out.hf)" = "$(ls kept.hf)" ] && diff -r out.hf kept.hf; }
refuses "export --hf, a BERT model" "bert.safetensors BERT" export bert.safetensors --hf out.hf
refuses "export --hf, no class head" "ar.safetensors classes" \
  export ar.safetensors --hf out.hf --head classes
refuses "export, two outputs" "--out --hf" export ar.safetensors --hf out.hf --out x.safetensors
refuses "export, a head of --out" "--head --hf" export ar.safetensors --head pixels
refuses "export --hf, no such place" "nowhere" export ar.safetensors --hf nowhere/hf
small pretrain --steps 1 --palette p.npy --out next.safetensors >out 2>err
(trap '' XFSZ; ulimit -f 8; "$tool" export next.safetensors --hf out.hf >out 2>err); status=$?
holds "export --hf, a file that cannot grow: status 1" test $status = 1 -a "$(grep -c '' err)" = 1
holds "... and none of these has changed the folder" kept
mv out.hf/model.safetensors out.hf/pytorch_model.bin
refuses "a folder with a pickle: how it is converted" "out.hf/pytorch_model.bin save_pretrained" \
  eval --model out.hf $data

if command -v python3 >/dev/null; then
  python3 "$root/bench/peers/palette_probe.py" >out 2>err; status=$?
  holds "palette_probe.py says how it is called" \
    sh -c "[ $status = 1 ] && grep -q '^usage: ' err && ! grep -q Traceback err"
fi

echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
