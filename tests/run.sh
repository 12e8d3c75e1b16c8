#!/bin/sh
# tests/run.sh: runs programs, counts their tests, and adds up.
#
#   run.sh one RESULT COMMAND...       runs it, writes RESULT.log and RESULT.sum, prints one line,
#                                      and the program's output if it failed (V=1: always), and
#                                      fails if it did
#   run.sh skip RESULT REASON          counts as one skipped test
#   run.sh sum FOLDER NAME...          adds the .sum files up: the closing line, and the exit status
#
# A program's last line is "N passed, N failed[, N skipped]". One that ends without it, or crashes
# after it, or that was never built, counts as one failure; one whose last line is "skipped WHAT:
# WHY" as skipped.

closing='^\([a-z]*: \)\{0,1\}[0-9][0-9]* passed, [0-9][0-9]* failed\(, [0-9]* skipped\)\{0,1\}$'

one() {
  result=$1 name=${1##*/}; shift
  mkdir -p "${result%/*}"
  start=$(date +%s)
  "$@" >"$result.out" 2>&1 </dev/null
  status=$?
  tr -d '\r' <"$result.out" >"$result.log"      # lines of Windows end with two
  rm "$result.out"
  seconds=$(($(date +%s) - start))
  line=$(grep "$closing" "$result.log" | tail -n 1)
  set -- $(echo "$line" | tr -c '0-9\n' ' ') 
  passed=${1:-0} failed=${2:-0} skipped=${3:-0} why=
  if [ -z "$line" ] && [ "$status" = 0 ] && tail -n 1 "$result.log" | grep -q '^skipped '; then
    skipped=1
  elif [ -z "$line" ]; then
    failed=$((failed + 1)) why=", ended without its closing line (status $status)"
  elif [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    failed=1 why=", ended with status $status"
  fi
  echo "$passed $failed $skipped" >"$result.sum"
  if [ "$failed" = 0 ]; then
    text=$(printf 'ok      %-12s %4d tests %4d s' "$name" "$passed" "$seconds")
    reasons=$(grep '^skipped ' "$result.log" | sed 's/^/        /')
    [ -z "$reasons" ] || text="$text
$reasons"
  else
    text=$(printf 'FAILED  %-12s %d of %d%s' "$name" "$failed" "$((passed + failed))" "$why")
  fi
  if [ "$failed" != 0 ] || [ -n "${V:-}" ]; then
    text="$text
$(grep -v "$closing" "$result.log" | sed 's/^/    | /')"
  fi
  printf '%s\n' "$text"
  [ "$failed" = 0 ]
}

add_up() {
  folder=$1 passed=0 failed=0 skipped=0; shift
  for name; do
    if [ -f "$folder/$name.sum" ]; then
      read -r p f s <"$folder/$name.sum"
    else
      echo "FAILED  $name: not built"
      p=0 f=1 s=0
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  done
  if [ $skipped = 0 ]; then echo "$passed passed, $failed failed"
  else echo "$passed passed, $failed failed, $skipped skipped"; fi
  [ $failed = 0 ] && [ $passed != 0 ]
}

case $1 in
  one) shift; one "$@" ;;
  skip) mkdir -p "${2%/*}"; echo "0 0 1" >"$2.sum"; printf 'skipped %s: %s\n' "${2##*/}" "$3" ;;
  sum) shift; add_up "$@" ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
