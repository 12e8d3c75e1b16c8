#!/bin/sh
# tests/compile/matrix.sh [quick|all|analyze] [FOLDER]: the header under compilers, dialects, levels,
# processors, orders and every build macro alone. A program that is built includes AND calls the
# library, comes about without a word from the compiler, and is run.
#
# quick    what make test takes: the default compilers, every macro, at -O0; where running it again
#          would say nothing new, the front end alone
# all      gcc and clang, C99 to C17, C++11 to C++20, -O0 to -O3, for 32 bits, for this processor, and
#          whichever older and newer versions are installed
# analyze  gcc -fanalyzer, clang-tidy (.clang-tidy) and cppcheck find nothing
#
# First the rows of a table are written, then they are done, as many at a time as there are
# processors (JOBS=1: one after the other). A row is NAME|VERB|COMMAND:
#
#   run            the command, with -o program added to it, makes a program that returns 0
#   silent         the command succeeds and says nothing
#   refused WORD   the command fails and says WORD
#   skip           the third field is the reason
#
# What is not installed is skipped.
set -u

# ---- one row -------------------------------------------------------------------------------------

if [ "${1:-}" = row ]; then
  row=$(sed -n "$3p" "$2/table") name=${row%%|*} rest=${row#*|}
  verb=${rest%%|*} command=${rest#*|}
  folder=$2/$3
  mkdir -p "$folder" && cd "$folder" || exit 1
  case $verb in
    run) (eval "$command -o $folder/program") >log 2>&1 && [ ! -s log ] && ./program >>log 2>&1 ;;
    silent) (eval "$command") >log 2>&1 && [ ! -s log ] ;;
    refused*) ! (eval "$command") >log 2>&1 && grep -q -e "${verb#refused }" log ;;
    skip) echo "skipped $name: $command"; rm -rf "$folder"; exit 0 ;;
    *) echo "no such verb: $verb" >log; false ;;
  esac
  if [ $? = 0 ]; then text="ok      $name"
  else text=$(echo "FAILED  $name"; (cat log; echo "$command") | cut -c 1-300 | head -24 |
                sed 's/^/        /')
  fi
  printf '%s\n' "$text"
  rm -rf "$folder"
  exit 0
fi

# ---- the table -----------------------------------------------------------------------------------

part=${1:-quick}
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${2:-$root/build/compile}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
rm -rf "${out:?}"/*
here=$root/tests/compile
have() { command -v "$1" >/dev/null 2>&1; }
row() { printf '%s|%s|%s\n' "$1" "$2" "$3" >>"$out/table"; }

both="-Werror -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wundef -Wcast-align"
both="$both -Wdouble-promotion"
C="$both -Wc++-compat -Wstrict-prototypes -Wmissing-prototypes"
CXX="$both -Wmissing-declarations"
paths="-I$root -I$here"
link="-lm -pthread"
c=$here/c99.c cxx=$here/cxx11.cc

flags_of() { case $1 in *++*) echo "$CXX" ;; *) echo "$C" ;; esac; }
source_of() { case $1 in *++*) echo "$cxx" ;; *) echo "$c" ;; esac; }

# programs COMPILER STANDARDS LEVELS [WHAT ELSE]: each standard with each level
programs() {
  have "$1" || { row "$1" skip "not installed"; return; }
  for standard in $2; do
    for level in $3; do
      row "$1 -std=$standard $level${4:+ $4}" run \
        "$1 -std=$standard $level ${4:-} $(flags_of "$1") $paths $(source_of "$1") $link"
    done
  done
}

# Whether this compiler can build and run for 32 bits here.
makes_32() {
  have "$1" && echo '#include <math.h>
    int main(int n, char **v) { (void)v; return sin(n) > 2; }' >"$out/try.c" &&
    "$1" -m32 "$out/try.c" -o "$out/try" -lm >/dev/null 2>&1 && "$out/try"
}

macros() {   # COMPILER VERB-OF-WHAT-NEED-NOT-RUN
  base="$1 -std=c99 -O0 $C $paths"
  syntax="$base -fsyntax-only"

  # ---- every build macro alone: each includes AND calls, and what it leaves out is not there --------
  for macro in STATIC NO_STDIO NO_THREADS NO_SIMD NO_AVX512 NO_AMX NO_TRAIN; do
    row "$1 IGPT_$macro" run "$base -DIGPT_$macro $c $link"
  done
  row "$1 all that IGPT_NO_ can leave out" run \
    "$base -DIGPT_NO_STDIO -DIGPT_NO_THREADS -DIGPT_NO_SIMD -DIGPT_NO_TRAIN $c -lm"
  row "$1 IGPTDEF" run "$base '-DIGPTDEF=extern __attribute__((visibility(\"hidden\")))' $c $link"
  row "$1 IGPT_ASSERT" run "$base -DASSERTED '-DIGPT_ASSERT(c)=asserted((c) != 0)' $c $link"
  row "$1 IGPT_MALLOC and IGPT_FREE" run "$base -DCOUNTED '-DIGPT_MALLOC(n)=counted_malloc(n)' \
    '-DIGPT_FREE(p)=counted_free(p)' $c $link"
  row "$1 IGPT_MALLOC without IGPT_FREE" "refused both IGPT_MALLOC and IGPT_FREE" \
    "$syntax '-DIGPT_MALLOC(n)=malloc(n)' $c"
  row "$1 -ffast-math is refused" "refused fast-math" "$syntax -ffast-math $c"
  row "$1 -Ofast is refused" "refused fast-math" "$syntax -Ofast $c"
  row "$1 ... or allowed by name" silent "$syntax -ffast-math -DIGPT_ALLOW_FAST_MATH $c"

  # ---- nothing that threads could share by mistake -----------------------------------------------
  row "$1 no variables" silent "$base -fno-pic -DIGPT_IMPLEMENTATION -x c -c $root/igpt.h -o o && \
    ! nm o | grep ' [BbCDd] '"

  # ---- files and folders -------------------------------------------------------------------------
  row "$1 a renamed header, IGPT__SELF" run \
    "$base -I$out/renamed '-DHEADER=\"my_igpt.h\"' '-DIGPT__SELF=\"my_igpt.h\"' $c $link"
  row "$1 the plain line: cc -O2 app.c -lm" run "cd $out/plain && $1 -O2 c99.c -lm"
  row "$1 from another folder, without -I" run \
    "cd $out/plain/inside && $1 -O0 '-DHEADER=\"../igpt.h\"' c99.c -lm"

  # ---- two files, awkward orders -----------------------------------------------------------------
  row "$1 two units" run "$base $here/two_units_a.c $here/two_units_b.c $link"
  row "$1 two units, IGPT_STATIC: each has its own" run \
    "$base -DIGPT_STATIC -DIGPT_IMPLEMENTATION= $here/two_units_a.c $here/two_units_b.c $link"
  row "$1 a host with macros, declarations after" run "$base $here/orders.c $link"
  row "$1 a host with short macros, declarations" silent "$syntax -DBORROWED $here/orders.c"
}

cxx_orders() {   # COMPILER
  have "$1" || { row "$1" skip "not installed"; return; }
  base="$1 -std=c++11 -O0 $CXX $paths"
  row "$1 inside the host's extern \"C\"" run "$base -x c++ $here/orders.c $link"
  row "$1 two units in C++" run \
    "$base -x c++ $here/two_units_a.c $here/two_units_b.c $link"
  row "$1 two units in C++, IGPT_STATIC" run "$base -DIGPT_STATIC -DIGPT_IMPLEMENTATION= -x c++ \
    $here/two_units_a.c $here/two_units_b.c $link"
  for macro in STATIC NO_STDIO NO_THREADS NO_SIMD NO_TRAIN; do
    row "$1 IGPT_$macro" silent "$base -DIGPT_$macro -fsyntax-only $cxx"
  done
}

mkdir -p "$out/renamed" "$out/plain/inside"
cp "$root/igpt.h" "$out/renamed/my_igpt.h"
cp "$root/igpt.h" "$c" "$here/calls.h" "$out/plain/"
cp "$c" "$here/calls.h" "$out/plain/inside/"

default=${CC:-cc}
case $default in
  *clang*) default_cxx=clang++ other=gcc ;;
  *) default_cxx=c++ other=clang ;;
esac

case $part in
  quick)
    macros "$default"
    cxx_orders "$default_cxx"
    programs "$default" "c99" "-O0"
    for standard in c11 c17; do
      row "$default -std=$standard" silent "$default -std=$standard $C $paths -fsyntax-only $c"
    done
    programs "$default_cxx" "c++11" "-O0"
    row "$default_cxx -std=c++20" silent "$default_cxx -std=c++20 $CXX $paths -fsyntax-only $cxx"
    programs "$other" "c99" "-O0"
    if makes_32 "$default"; then programs "$default" "c99" "-O0" "-m32"
    else row "$default -m32" skip "it has no 32-bit library here"; fi ;;
  all)
    # The slow ones first, so that both processors are busy to the end.
    for compiler in gcc clang; do
      programs $compiler "c99" "-O3" "-march=native"
      programs $compiler "c99" "-O3 -O2 -Os -O1 -O0"
      programs $compiler "c11 c17" "-O2 -O0"
      if makes_32 $compiler; then
        programs $compiler "c99" "-O3 -O2 -O0" "-m32"
        programs $compiler "gnu17" "-O2" "-m32"
        programs $compiler "c11" "-O2" "-m32 -msse2 -mfpmath=sse"
      else row "$compiler -m32" skip "it has no 32-bit library here (gcc-multilib)"; fi
    done
    for compiler in g++ clang++; do
      programs $compiler "c++11" "-O3 -O2 -Os -O1 -O0"
      programs $compiler "c++17" "-O2" "-march=native"
      programs $compiler "c++14 c++17 c++20" "-O2 -O0"
    done
    for version in 9 10 11 13 14 15; do
      if have gcc-$version; then programs gcc-$version "c99" "-O2 -O0"; fi
      if have g++-$version; then programs g++-$version "c++17" "-O0"; fi
    done
    for version in 11 13 15 16 17 18 19 20 21 22; do
      if have clang-$version; then programs clang-$version "c99" "-O2 -O0"; fi
    done
    for compiler in gcc clang; do if have $compiler; then macros $compiler; fi; done
    for compiler in g++ clang++; do cxx_orders $compiler; done ;;
  analyze)
    # The analyzers see the generic kernels: the same text as all others, but for its vector words. A
    # row of its own shows those to clang-tidy. IGPT_ASSERT tells them what the code guarantees. The
    # slow ones first: gcc 12 needs 3 minutes and 3.5 GB, clang-tidy 14 two minutes a row.
    plain="-std=c99 $paths -DIGPT_NO_SIMD"
    asserting="'-DIGPT_ASSERT(c)=((c) ? (void)0 : abort())'"
    headers="-Xclang -analyzer-opt-analyze-headers"
    if have gcc; then
      row "gcc -fanalyzer, the generic kernels" silent "gcc -fanalyzer $plain $asserting -c $c -o o"
    else row "gcc -fanalyzer" skip "not installed"; fi
    if have clang-tidy; then
      tidy() { row "$1" silent "clang-tidy --quiet $2 -- $3 $asserting $headers 2>/dev/null"; }
      tidy "clang-tidy, the generic kernels" "$c" "$plain"
      tidy "clang-tidy, this processor's kernels" "$c" "-std=c99 $paths"
      if [ -n "$(sh "$root/tests/need.sh" check && echo yes)" ]; then
        # Its headers as it calls them. What a verb holds in the end is the system's; stb is given no
        # picture without pixels.
        but=-clang-analyzer-unix.Malloc,-clang-analyzer-optin.portability.UnixAPI
        row "clang-tidy, the tool" silent \
          "clang-tidy --quiet --checks=$but $root/examples/igpt.c -- $plain $asserting 2>/dev/null"
      else row "clang-tidy, the tool" skip "needs stb_image.h"; fi
      for example in "$root"/examples/0*.c; do   # the library was looked through above
        row "clang-tidy, ${example##*/}" silent \
          "clang-tidy --quiet $example -- $plain 2>/dev/null"
      done
    else row "clang-tidy" skip "not installed"; fi
    if have cppcheck; then
      check() {
        row "$1" silent "cppcheck --quiet --std=c99 --enable=warning,portability,performance \
          --inline-suppr --suppressions-list=$here/cppcheck.txt -D__GNUC__=12 -DIGPT_NO_SIMD \
          -DIGPT_IMPLEMENTATION -I$root $2"
      }
      check "cppcheck" "$c"
      check "cppcheck, the tool" "$root/examples/igpt.c"
    else row "cppcheck" skip "not installed"; fi ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

# ---- all rows ------------------------------------------------------------------------------------

rows=$(wc -l <"$out/table")
seq "$rows" | xargs -P "${JOBS:-$(nproc 2>/dev/null || echo 2)}" -n 1 \
  sh "$here/matrix.sh" row "$out" | tee "$out/results"

passed=$(grep -c '^ok ' "$out/results") failed=$(grep -c '^FAILED ' "$out/results")
skipped=$(grep -c '^skipped ' "$out/results")
failed=$((failed + rows - passed - failed - skipped))      # and those that ended without a word
if [ "$skipped" = 0 ]; then echo "$passed passed, $failed failed"
else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ "$failed" = 0 ]
