#!/bin/sh
# tests/machines.sh [MACHINE...]: the C tests on other processors and systems than this one.
#
# A row of the table below is a machine: the compiler that makes its programs, what runs them here,
# and the row of kernels that the library has to choose there (AUTO: whatever it finds). All
# programs of tests/*.c run; where a processor is emulated, the largest cases are smaller, and say
# so. If programs cannot be made or run, Debian's packages for it are installed, if that may be
# (tests/need.sh); if there are still none, the machine is skipped, with the reason.
#
# What was printed is left in build/machines/MACHINE/results.
set -u
cd "$(dirname "$0")/.." || exit 1
out=build/machines
mkdir -p $out
wanted=" ${*:-all} "
passed=0 failed=0 skipped=0
version=$(gcc -dumpversion 2>/dev/null | cut -d. -f1)   # of the cross compilers' libgcc, too

skip() {   # WHAT REASON
  echo "skipped $1: $2"
  skipped=$((skipped + 1))
}

# Whether a program comes about, and gives its status through the runner.
works() {
  printf '#include <stdio.h>\n#include <math.h>\n%s\n' \
    'int main(int n, char **v) { puts(v[0]); return 40 + (int)sqrt(4.0 * n); }' >$out/try.c
  rm -f $out/try $out/try.exe
  if ! $cc $flags $out/try.c -o $out/try $link >$out/try.log 2>&1; then
    why="no program can be made: $(head -n 1 $out/try.log)"
    return 1
  fi
  $runner $out/try >$out/try.log 2>&1
  [ $? = 42 ] && return
  why="no program can be run: $(head -n 1 $out/try.log)"
  return 1
}

# machine NAME KERNELS COMPILER FLAGS RUNNER PACKAGES [TESTS]
machine() {
  name=$1 kernels=$2 cc=$3 flags=$4 runner=$5 packages=$6 only=${7:-}
  case $wanted in *" all "* | *" $name "*) ;; *) return ;; esac
  echo "==== $name: $cc $flags${runner:+, run by $runner}"
  if ! works; then
    sh tests/need.sh install $packages
    works || { skip "$name" "$why"; return; }
  fi
  tests= stb=
  for test in ${only:-tests/*.c}; do
    test=${test##*/} test=${test%.c}
    case " $posix " in
      *" $test "*) skip "$test" "it needs POSIX, as the examples do"; stb="STB=none" ;;
      *) tests="$tests $test" ;;
    esac
  done
  [ "$kernels" = AUTO ] || flags="$flags -DTEST_KERNELS=IGPT_ISA_$kernels"
  ${MAKE:-make} --no-print-directory ctest CC="$cc" RUNNER="$runner" LINK="$link" B=$out/$name \
    TESTS="$tests" CFLAGS="-O2 $flags" $stb 2>&1 |
    tee $out/$name.log
  set -- $(grep '^[0-9]* passed, ' $out/$name.log | tail -n 1 | tr -c '0-9\n' ' ')
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-1})) skipped=$((skipped + ${3:-0}))
}

# ---- the table -----------------------------------------------------------------------------------

posix= link="-lm -pthread"

linux() {   # NAME KERNELS TARGET FLAGS QEMU DEBIAN'S-NAME: static, so that qemu needs no folders
  machine "$1" "$2" "clang --target=$3" "$4 -static -DTEST_EMULATED" "$5" \
    "clang qemu-user binutils-$3 libc6-dev-$6-cross libgcc-$version-dev-$6-cross libstb-dev"
}

linux aarch64 NEON aarch64-linux-gnu "" qemu-aarch64 arm64
linux armv7 GENERIC arm-linux-gnueabihf "-march=armv7-a -mfpu=vfpv3-d16" \
  "qemu-arm -cpu cortex-a9" armhf
linux riscv64 GENERIC riscv64-linux-gnu "" qemu-riscv64 riscv64
linux s390x GENERIC s390x-linux-gnu "" qemu-s390x s390x

# Processors like this one that have no AVX2, or not all that belongs to it.
machine x86-64 GENERIC gcc -DTEST_EMULATED "qemu-x86_64 -cpu Nehalem" "gcc qemu-user libstb-dev"
for hidden in avx2 fma xsave; do
  machine x86-64-no-$hidden GENERIC gcc -DTEST_EMULATED "qemu-x86_64 -cpu max,-$hidden" \
    "gcc qemu-user" kernels
done

# Float32 in the x87's registers, which are wider.
machine i386 GENERIC "gcc -m32" "" "" "gcc gcc-multilib libstb-dev"

posix="dataset fuzz killed"

machine windows AUTO x86_64-w64-mingw32-gcc -static "sh tests/wine.sh" \
  "gcc-mingw-w64-x86-64 wine64 wine"

link="-lm -Wl,-z,stack-size=1048576"
machine wasm WASM "clang --target=wasm32-wasi" "-msimd128 -DIGPT_NO_THREADS" \
  "node --no-warnings tests/wasi.mjs" \
  "clang lld wasi-libc libclang-rt-$(clang -dumpversion 2>/dev/null | cut -d. -f1)-dev-wasm32 nodejs"

if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
else echo "$passed passed, $failed failed, $skipped skipped"; fi
[ $failed = 0 ] && [ $passed != 0 ]
