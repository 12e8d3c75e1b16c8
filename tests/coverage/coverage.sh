#!/bin/sh
# coverage.sh CFLAGS THREADED OTHERS [BUILD...]: builds these tests so that they count what they do,
# with the generic kernels and with all, runs them in build/coverage/generic and default, and has
# coverage.py look at the counts.
#
# Which kernels the default build runs is up to the processor: it is skipped where there is neither
# AMX nor what sessions take instead.
set -u
for tool in gcc gcov python3; do
  command -v $tool >/dev/null || { echo "skipped coverage: $tool is not installed"; exit 0; }
done
flags=$1 threaded=$2 others=$3 failed=0; shift 3
for build in ${*:-generic default}; do
  folder=build/coverage/$build
  what=$flags
  [ $build = default ] || what="$flags -DIGPT_NO_SIMD"
  has=neither
  grep -q avx512_bf16 /proc/cpuinfo 2>/dev/null && grep -q AuthenticAMD /proc/cpuinfo && has=dots
  grep -q amx_bf16 /proc/cpuinfo 2>/dev/null && has=amx
  if [ $build = default ] && [ $has = neither ]; then
    echo "skipped coverage, default: this processor has neither AMX nor fast dot products"
    continue
  fi
  echo "---- $build"
  rm -rf "$folder"
  $MAKE ctest CC=gcc B="$folder" CFLAGS="$what" TESTS="$threaded" || failed=1
  $MAKE ctest CC=gcc B="$folder" CFLAGS="$what -fprofile-update=single" TESTS="$others" || failed=1
  python3 tests/coverage/coverage.py "$folder" $build $has || failed=1
done
exit $failed
