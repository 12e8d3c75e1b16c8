#!/bin/sh
# tests/examples.sh [FOLDER]: the example programs, built in FOLDER (build). Each has at most 150
# lines, opens with its exact compile line, runs without an argument, and shows what it claims.
set -u
folder=${1:-build}
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' "$log" | tail -n 20; }
log=$(mktemp "${TMPDIR:-/tmp}/igpt-examples.XXXXXX") || exit 1
trap 'rm -f "$log"' EXIT

# shows NAME AWK-PROGRAM: the example succeeds; the awk program, fed its output, ends with status 0
shows() {
  name=$1 source=examples/$1.c
  head -n 1 "$source" >"$log"
  wc -l <"$source" >>"$log"
  line="cc -O2 -I. -o $name $source -lm"
  if [ "$(wc -l <"$source")" -le 150 ] &&
     head -n 1 "$source" | grep -qxF -e "/* $line" -e "/* $line -pthread"
  then ok "$name: its length and its first line"; else bad "$name: its length or its first line"; fi
  if "$folder/$name" >"$log" 2>&1 && awk "$2" "$log"; then ok "$name: what it shows"
  else bad "$name: what it shows"; fi
}

# A new model charges ln 512 for every pixel
shows 01_hello '/nats a pixel/ && / 6\.238 nats/ { good = 1 } END { exit !good }'
# The library and the definition agree; more colours, more decibels
shows 02_palette 'NF == 6 && $1 + 0 { rows++; if ($4 != $5 || $4 <= last) bad = 1; last = $4 }
                  END { exit bad || rows != 5 || last < 40 }'
# From ln 4 to below twice the floor, on pictures that were never trained on
shows 03_train 'NF == 5 && $1 == "0" { first = $3 } NF == 5 { last = $3 } /^floor/ { floor = $2 }
                END { exit first != 1.3863 || last >= 2 * floor || last <= floor }'
shows 04_complete '/lower pixels right/ { before = $4; after = $7 }
                   END { exit before > 30 || after < 98 }'
shows 05_bert '/hidden pixels right/ { before = $4; after = $7; best = $11 }
               END { exit before > 40 || after < best - 4 }'
# The trained network beats the untrained one and the pixels by far
shows 06_probe 'NF == 3 && $1 ~ /^[0-4]$/ { if ($2 > fresh) fresh = $2; if ($3 > best) best = $3 }
                /^raw pixels/ { raw = $3 } END { exit best < fresh + 10 || best < raw + 40 }'
shows 07_finetune '/from nothing/ { exit !($8 + 20 < $12) }'
# Two runs, one fingerprint; a sentence with both sizes; a call that was stopped
shows 08_own_memory '/fingerprint/ { print_of[$NF]++ } /are needed/ { sentence = 1 }
                     /^  stopped/ { stopped = 1 }
                     END { for (p in print_of) twice = print_of[p] == 2
                           exit !twice || !sentence || !stopped }'

# The first line of one of them, word by word, in a folder that has igpt.h and examples/
scratch=$(mktemp -d "${TMPDIR:-/tmp}/igpt-line.XXXXXX") || exit 1
trap 'rm -rf "$log" "$scratch"' EXIT
ln -s "$PWD/igpt.h" "$PWD/examples" "$scratch/"
if (cd "$scratch" && eval "$(sed -n '1s,^/\* ,,p' examples/02_palette.c)" && ./02_palette) \
   >"$log" 2>&1
then ok "a compile line, as it stands"; else bad "a compile line, as it stands"; fi

echo "$passed passed, $failed failed"
[ $failed = 0 ]
