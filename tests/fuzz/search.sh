#!/bin/sh
# search.sh SECONDS TARGET...: build/fuzz/TARGET, one after the other, each for that long. Prints the
# executions and findings of each; an input that is a finding is kept in build/fuzz/TARGET-found/.
# What the search has learned stays in build/fuzz/TARGET-corpus/ for the next.
seconds=$1 findings=0; shift
mkdir -p build
for target; do
  corpus=build/fuzz/$target-corpus found=build/fuzz/$target-found
  mkdir -p "$corpus" "$found"
  rm -f "$found"/*
  # Memory that die() leaves behind is no leak: the targets look for leaks themselves.
  "build/fuzz/$target" -max_total_time="$seconds" -timeout=20 -report_slow_units=20 -rss_limit_mb=1024 \
    -malloc_limit_mb=256 -detect_leaks=0 -print_final_stats=1 -artifact_prefix="$found/" \
    "$corpus" "tests/fuzz/corpus/$target" >"build/fuzz/$target.log" 2>&1
  status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/$target.log")
  n=$(ls "$found" | wc -l)
  [ $status = 0 ] || [ "$n" != 0 ] || n=1
  findings=$((findings + n))
  echo "$target: ${runs:-0} executions, $n findings (build/fuzz/$target.log)"
done
[ $findings = 0 ]
