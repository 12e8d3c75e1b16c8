#!/bin/sh
# tests/docs.sh [TOOL [OBJECT]]: what the documentation shows is true. Every code block of the manual
# in igpt.h (lines that begin with "    | ") and of README.md (```c) compiles without a warning; the
# program of the title draws a picture; every option of the tool that README.md uses exists. OBJECT
# is igpt.h, compiled already.
set -u
tool=${1:-build/igpt}
case $tool in /*) ;; *) tool=$PWD/$tool ;; esac
cc=${CC:-cc}
root=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/igpt-docs.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' log | head -12; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }

# ---- blocks: each into its own file, named by the line on which it begins ------------------------

awk '/^    \| / || /^    \|$/ { if (!file) file = sprintf("manual-%05d.block", NR)
                               print substr($0, 7) >file; next }
     file { close(file); file = "" }' "$root/igpt.h"
[ ! -f "$root/README.md" ] ||
  awk '/^```c$/ { file = sprintf("readme-%05d.block", NR); next }
       /^```/ { if (file) close(file); file = "" }
       file { print >file }' "$root/README.md"

# A block with main is a program. Others are put into a function, after what they may refer to: a
# model, a session and tokens, which a block that has its own then hides.
for block in *.block; do
  name=${block%.block}
  if grep -q 'int main' "$block"; then cp "$block" "$name.c"
  else {
    grep '^ *#' "$block"
    grep -q '#include "igpt.h"' "$block" || echo '#include "igpt.h"'
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    echo '#include <string.h>'
    echo 'extern igpt_model *model; extern igpt_session *session; extern uint16_t tokens[1024];'
    echo 'void block(void);'
    echo 'void block(void) {'
    grep -v '^ *#' "$block"
    echo '}'
  } >"$name.c"
  fi
  # a fragment may leave a variable unused; nothing else is forgiven
  if $cc -std=c99 -Wall -Wextra -Werror -Wno-unused -fsyntax-only -I"$root" "$name.c" >log 2>&1
  then ok "$name compiles"; else bad "$name compiles"; fi
done

# ---- the program of the title, with a model of its own -------------------------------------------

cat >make_model.c <<'END'
#include "igpt.h"
int main(void)
{
  static igpt_palette palette;
  igpt_model *model;
  int i;
  palette.colours = 512;
  for (i = 0; i < 512; i++) palette.centre[i][0] = (float)i / 256 - 1;
  if (igpt_model_create(&model, NULL) || igpt_model_set_palette(model, &palette)) return 1;
  return igpt_model_save(model, "model.safetensors") != IGPT_OK;
}
END
library=-DIGPT_IMPLEMENTATION
case ${2:-} in '') ;; /*) library=$2 ;; *) library=$root/$2 ;; esac
title=$(grep -l 'int main' manual-*.block | head -n 1)
title=${title%.block}.c
if $cc -O2 -I"$root" -o make_model make_model.c $library -lm -pthread >log 2>&1 && ./make_model >>log 2>&1 &&
   $cc -O2 -I"$root" -o title "$title" -lm >>log 2>&1 &&
   ./title model.safetensors >picture.ppm 2>>log &&
   [ "$(head -n 1 picture.ppm)" = "P6 32 32 255" ] && [ "$(wc -c <picture.ppm)" = 3085 ]
then ok "the program of the title"; else bad "the program of the title"; fi

# ---- options of the tool -------------------------------------------------------------------------

if [ ! -f "$root/README.md" ]; then skip "options in README.md" "there is no README.md"
elif [ ! -x "$tool" ]; then skip "options in README.md" "$tool is not built"
else
  # lines that begin with the tool's name, those that end in a backslash joined
  awk '{ line = line $0 } /\\$/ { sub(/\\$/, " ", line); next } { print line; line = "" }' \
    "$root/README.md" | grep -o '^ *\(build/\)\{0,1\}igpt [a-z]* [^`|#>]*' >commands
  : >log
  while read -r _ verb options; do
    "$tool" "$verb" --help >help 2>&1 || { echo "$verb: no such verb" >>log; continue; }
    for option in $options; do
      case $option in
        --*) grep -q -e "^ *${option%%=*}\b" help || echo "$verb has no $option" >>log ;;
      esac
    done
  done <commands
  if [ ! -s log ]; then ok "options in README.md ($(wc -l <commands) commands)"
  else bad "options in README.md"; fi
fi

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
