#!/bin/sh
# tests/small.sh [host|boards] [FOLDER]: what a small machine needs for inference, measured by a
# program that completes a picture (tests/cortex-m/complete.c), with no malloc, stdio, threads or
# training and with its weights in a constant array.
#
# host     sizes of the library and of that program, what they ask of the C library, the stack
# boards   that, and the same program as images for a Cortex-M3 and a Cortex-M7, run by QEMU, which
#          must complete the same picture as the host
set -u
part=${1:-host} folder=${2:-build/small} cc=${CC:-cc}
here=tests/cortex-m
passed=0 failed=0 skipped=0
mkdir -p "$folder" || exit 1
log=$folder/log
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' "$log" | tail -n 30; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: $2"; }
finish() {
  if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
  else echo "$passed passed, $failed failed, $skipped skipped"; fi
  [ $failed = 0 ]; exit
}

# check NAME COMMAND...: a test that passes if the command succeeds
check() { name=$1; shift; if "$@" >"$log" 2>&1; then ok "$name"; else bad "$name"; fi; }

warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
none="-DIGPT_NO_STDIO -DIGPT_NO_THREADS -DIGPT_NO_TRAIN -DIGPT_NO_SIMD"
# Without the compiler's own additions (canaries, checked copies), which are the caller's choice.
small="-std=c99 -Os -fno-pic -fno-stack-protector -U_FORTIFY_SOURCE $warn -I."

# ---- the model, and what the whole library makes of it -------------------------------------------

steps=20
[ "$part" = host ] || steps=200                 # enough for pictures worth looking at
build_model() {
  $cc -std=c99 -O1 $warn -I. -o "$folder/make" $here/make.c -lm &&
    "$folder/make" "$folder/model.safetensors" $steps >"$folder/expected"
}
check "a model is trained" build_model
picture() { grep -E '^([0-9a-f]{16}|rgb [0-9a-f]{8})$' "$1"; }      # what all must agree about
number() { sed -n "s/^$1 //p" "$2"; }
same_picture() {   # OUTPUT: 16 lines and a sum, those of `expected`, and the nats of the host
  picture "$folder/expected" >"$folder/want" && picture "$1" >"$folder/got" &&
    [ "$(wc -l <"$folder/want")" = 17 ] && diff "$folder/want" "$folder/got" &&
    echo "$(number micronats "$folder/host.txt") $(number micronats "$1")" | tee /dev/stderr |
      awk 'NF == 2 { good = $1 > 0 && $2 - $1 < 10 && $1 - $2 < 10 } END { exit !good }'
}

# ---- the host ------------------------------------------------------------------------------------

sections() {   # FILE: "text data bss"; constants count as text
  size "$1" | awk 'NR == 2 { print $1, $2, $3 }'
}

# All of the library that is left, whether a program uses it or not.
build_library() {
  $cc $small $none '-DIGPT_MALLOC(n)=((void)(n),(void*)0)' '-DIGPT_FREE(p)=((void)(p))' \
    -DIGPT_IMPLEMENTATION -x c -c igpt.h -o "$folder/igpt.o" & library=$!
  $cc $small -c $here/complete.c -o "$folder/complete.o" &&
    $cc $small -c $here/host.c -o "$folder/host.o" && wait $library &&
    $cc -no-pie -o "$folder/host" "$folder/complete.o" "$folder/host.o" -lm -pthread
}
is_small() {   # FILE BYTES: at most so many bytes of code and constants, and no variables
  sections "$1" && sections "$1" | awk -v most="$2" '{ good = $1 > 1000 && $1 <= most && $2 == 0 }
                                                      END { exit !good }'
}
code_of() { sections "$folder/$1" | cut -d ' ' -f 1; }
no_variables() { [ "$(sections "$1" | cut -d ' ' -f 2,3)" = "0 0" ]; }
# Strings, blocks of memory and functions of numbers: nothing that allocates or prints.
asks_little() {
  known='bcmp|mem(chr|cmp|cpy|move|set)|str(chr|cmp|len|ncmp)|machine_put'
  known="$known|(cos|exp|floor|fmod|log|log10|log1p|pow|sin|sincos|sqrt)f?"
  nm -u "$1" && [ "$(nm -u "$1" | grep -cvE " ($known)\$")" = 0 ]
}
# What the dynamic linker does at a first call would take the stack.
runs_on_host() { LD_BIND_NOW=1 "$folder/host" "$folder/model.safetensors" >"$folder/host.txt"; }
stack_is_small() {   # OUTPUT BYTES
  number stack "$1" | awk -v most="$2" '{ print; good = $1 > 500 && $1 <= most } END { exit !good }'
}

if command -v size >/dev/null 2>&1 && command -v nm >/dev/null 2>&1; then
  check "it compiles with -Os and nothing that a small machine lacks" build_library
  check "the library has at most 160 KiB" is_small "$folder/igpt.o" 163840
  check "the library has no variables" no_variables "$folder/igpt.o"
  check "the library calls memory, strings and mathematics alone" asks_little "$folder/igpt.o"
  check "the program has at most 96 KiB" is_small "$folder/complete.o" 98304
  check "the program calls no more" asks_little "$folder/complete.o"
  check "the program runs" runs_on_host
  check "it completes the picture as the whole library does" same_picture "$folder/host.txt"
  check "it uses at most 8 KiB of stack" stack_is_small "$folder/host.txt" 8192
  echo "$($cc -dumpmachine), -Os: the library $(code_of igpt.o) bytes, the program" \
    "$(code_of complete.o); stack $(number stack "$folder/host.txt")"
else skip "the host" "it has no size or no nm (binutils)"; fi
[ "$part" = boards ] || finish

# ---- the boards ----------------------------------------------------------------------------------

for tool in arm-none-eabi-gcc qemu-system-arm; do
  command -v $tool >/dev/null 2>&1 || { skip "the boards" "there is no $tool (apt-get install \
gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm)"; finish; }
done

build_image() {   # NAME PROCESSOR [MORE]
  arm-none-eabi-gcc -std=gnu99 -Os $2 -mthumb $warn -Wno-pedantic -I. -Wa,-I"$folder" \
    -ffunction-sections -nostartfiles -Wl,--gc-sections -T $here/board.ld ${3:-} \
    -o "$folder/$1.elf" $here/complete.c $here/board.c -lm
}
run_image() {     # BOARD NAME
  timeout 300 qemu-system-arm -M "$1" -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel "$folder/$2.elf" </dev/null \
    >"$folder/$2.txt" 2>&1 || { cat "$folder/$2.txt"; return 1; }
}
is_refused() { ! run_image "$1" "$2" && grep -q 'stopped at a fault' "$folder/$2.txt"; }

board() {   # BOARD WHAT PROCESSOR
  check "$2: the image is built" build_image "$1" "$3"
  check "$2: it runs" run_image "$1" "$1"
  check "$2: it completes the same picture as the host" same_picture "$folder/$1.txt"
  check "$2: it uses at most 4 KiB of stack" stack_is_small "$folder/$1.txt" 4096
  check "$2: an image that writes to its weights is built" build_image "$1-write" "$3" \
    -DWRITE_TO_FLASH
  check "$2: ... and is stopped" is_refused "$1" "$1-write"
  weights=$(number weights "$folder/$1.txt")
  echo "$2: code $(($(code_of "$1.elf") - weights)) bytes, weights $weights;" \
    "model $(number model "$folder/$1.txt"), session $(number session "$folder/$1.txt")," \
    "stack $(number stack "$folder/$1.txt")"
}
board mps2-an385 "Cortex-M3" "-mcpu=cortex-m3"
board mps2-an500 "Cortex-M7" "-mcpu=cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard"
finish
