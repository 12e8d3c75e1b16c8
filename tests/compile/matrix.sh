#!/bin/sh
# tests/compile/matrix.sh [quick|all] [FOLDER]: the header under compilers, dialects, levels and
# every build macro alone. Each program includes AND calls the library, is built without a warning,
# and run.
#
# quick: the default C and C++ compilers, the macros at -O0 (a part of make test). all: gcc and
# clang, C99 to C17, C++11 to C++20, -O0 to -O3. A compiler that is not there is skipped.
set -u
part=${1:-quick}
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${2:-$root/build/compile}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
here=$root/tests/compile
rm -rf "$out"/*
cd "$out" || exit 1

passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' log | head -12; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }

warnings="-Werror -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef"
c="$warnings -Wstrict-prototypes"

# compiles NAME COMMAND...: without a word; builds NAME COMMAND...: to ./program, which then runs;
# builds_in FOLDER NAME COMMAND...: there
compiles() {
  name=$1; shift
  if "$@" >log 2>&1 && [ ! -s log ]; then ok "$name"; else echo "$*" >>log; bad "$name"; fi
}
builds_in() {
  folder=$1 name=$2; shift 2
  rm -f "$out/program"
  if (cd "$folder" && "$@" -o "$out/program") >log 2>&1 && [ ! -s log ] && ./program >>log 2>&1
  then ok "$name"
  else echo "$*" >>log; bad "$name"; fi
}
builds() { builds_in . "$@"; }
# refuses NAME WORD COMMAND...: does not compile, and says why
refuses() {
  name=$1 word=$2; shift 2
  if ! "$@" -o program >log 2>&1 && grep -q -e "$word" log; then ok "$name"; else bad "$name"; fi
}

# ---- dialects ------------------------------------------------------------------------------------

link="-lm -pthread"
C=$here/c99.c CXX=$here/cxx11.cc
default=${CC:-cc}
case $default in *clang*) default_cxx=clang++ ;; *) default_cxx=c++ ;; esac

dialects() {   # COMPILER SOURCE WARNINGS LEVELS STANDARDS
  command -v "$1" >/dev/null 2>&1 || { skip "$1" "not installed"; return; }
  for standard in $5; do
    for level in $4; do
      builds "$1 -std=$standard $level" $1 -std=$standard $level $3 -I"$root" -I"$here" "$2" $link
    done
  done
}
if [ "$part" = all ]; then
  for compiler in gcc clang; do
    dialects $compiler "$C" "$c" "-O0 -O1 -O2 -O3 -Os" "c99 c11 c17"
    command -v $compiler >/dev/null 2>&1 &&
      builds "$compiler -O3 -march=native" $compiler -O3 -march=native $c -I"$root" -I"$here" "$C" $link
  done
  dialects g++ "$CXX" "$warnings" "-O0 -O2 -O3" "c++11 c++17 c++20"
  dialects clang++ "$CXX" "$warnings" "-O0 -O2 -O3" "c++11 c++17 c++20"
  compilers="gcc clang"
else
  dialects "$default" "$C" "$c" "-O0" "c99 c11"
  dialects "$default_cxx" "$CXX" "$warnings" "-O0" "c++11"
  other=clang; case $default in *clang*) other=gcc ;; esac
  dialects "$other" "$C" "$c" "-O0" "c99"
  compilers=$default
fi

for cc in $compilers; do
  command -v $cc >/dev/null 2>&1 || continue
  base="$cc -std=c99 -O0 $c -I$root -I$here"

  # ---- every build macro alone -------------------------------------------------------------------
  for macro in STATIC NO_STDIO NO_THREADS NO_SIMD NO_AVX512 NO_AMX NO_TRAIN; do
    builds "$cc IGPT_$macro" $base -DIGPT_$macro "$C" $link
  done
  builds "$cc all that IGPT_NO_ can leave out" $base -DIGPT_NO_STDIO -DIGPT_NO_THREADS \
    -DIGPT_NO_SIMD -DIGPT_NO_TRAIN "$C" -lm
  builds "$cc IGPTDEF" $base "-DIGPTDEF=extern __attribute__((visibility(\"hidden\")))" "$C" $link
  builds "$cc IGPT_ASSERT" $base -DASSERTED "-DIGPT_ASSERT(c)=asserted((c) != 0)" "$C" $link
  builds "$cc IGPT_MALLOC and IGPT_FREE" $base -DCOUNTED "-DIGPT_MALLOC(n)=counted_malloc(n)" \
    "-DIGPT_FREE(p)=counted_free(p)" "$C" $link
  refuses "$cc IGPT_MALLOC without IGPT_FREE" "both IGPT_MALLOC and IGPT_FREE" $base \
    "-DIGPT_MALLOC(n)=malloc(n)" -fsyntax-only "$C"
  refuses "$cc -ffast-math is refused" "fast-math" $base -ffast-math -fsyntax-only "$C"
  refuses "$cc -Ofast is refused" "fast-math" $base -Ofast -fsyntax-only "$C"
  compiles "$cc ... or allowed by name" $base -ffast-math -DIGPT_ALLOW_FAST_MATH -fsyntax-only "$C"

  # ---- files and folders -------------------------------------------------------------------------
  mkdir -p renamed plain/inside
  cp "$root/igpt.h" renamed/my_igpt.h
  builds "$cc a renamed header, IGPT__SELF" $base -Irenamed '-DHEADER="my_igpt.h"' \
    '-DIGPT__SELF="my_igpt.h"' "$C" $link
  cp "$root/igpt.h" "$C" "$here/calls.h" plain/
  cp "$C" "$here/calls.h" plain/inside/
  builds_in plain "$cc the plain line: cc -O2 app.c -lm" $cc -O2 c99.c -lm
  builds_in plain/inside "$cc from another folder, without -I" $cc -O0 '-DHEADER="../igpt.h"' \
    c99.c -lm

  # ---- two files, awkward orders -----------------------------------------------------------------
  builds "$cc two units" $base "$here/two_units_a.c" "$here/two_units_b.c" $link
  builds "$cc two units, each with its own" $base -DIGPT_STATIC -DIGPT_IMPLEMENTATION= \
    "$here/two_units_a.c" "$here/two_units_b.c" $link
done

if [ "$part" = all ]; then
  for target in aarch64-linux-gnu-gcc x86_64-w64-mingw32-gcc; do
    command -v $target >/dev/null 2>&1 || { skip $target "not installed"; continue; }
    compiles "$target" $target -std=c99 -O2 $c -I"$root" -I"$here" -fsyntax-only "$C"
  done
fi
rm -f program
if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ]
