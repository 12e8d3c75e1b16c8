#!/bin/sh
# tests/paper.sh TOOL PLOT_CSV [NAME...]: scripts of examples/paper (all of them), each with its
# --quick: the table has the means it should have, and there are curves.
set -u
tool=$1 plot=$2; shift 2
work=$(mktemp -d "${TMPDIR:-/tmp}/igpt-paper.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1"; sed 's/^/        /' "$work/log" | tail -n 20; }

TOOL=$tool PLOT=$plot QUICK=$work SIDES="8 4" PALETTES="16 4" LABELS="2 4" SUBSETS="1 2"
MASKS="pixel block:2 jigsaw:4"
export TOOL PLOT QUICK SIDES PALETTES LABELS SUBSETS MASKS

# script NAME MEANS [OPTION...]
script() {
  name=$1 means=$2; shift 2
  sh examples/paper/$name.sh --quick --seeds 1 "$@" >"$work/log" 2>&1 || { bad "$name"; return; }
  found=$(grep -Ec ',[01]\.[0-9]{4},0\.[0-9]{4},[0-9]+$' "$work/$name.means.csv")
  if [ "$found" = "$means" ]; then ok "$name: $means means"; else bad "$name: $found means"; fi
  if grep -q '<path' "$work/$name.svg"; then ok "$name: curves"; else bad "$name: curves"; fi
}

[ $# -gt 0 ] || set -- a_depth b_loss c_finetune d_labels e_together f_size g_transfer h_masks
for name; do
  case $name in
    a_depth) script a_depth 14 ;;
    b_loss) script b_loss 5 ;;
    c_finetune) script c_finetune 12 ;;
    d_labels) script d_labels 6 ;;
    e_together) script e_together 4 ;;
    f_size) script f_size 4 ;;
    g_transfer)
      mkdir -p "$work/others"
      for i in 0 1 2 3 4 5 6 7 8 9 10 11; do    # samples of an untrained network are pictures too
        "$tool" sample --model "$work/ar-1.safetensors" --keep 0 --count 1 --seed $i \
          --out "$work/others/$i.png" >"$work/log" 2>&1 || { bad "g_transfer: pictures"; break; }
      done
      script g_transfer 6 --other "$work/others" ;;
    h_masks) script h_masks 9 ;;
  esac
done

# mean and deviation of what can be reckoned by hand, and the levels that become first rows
printf 'seed,x,kind,test\n1,0,a,1\n2,0,a,4\n1,pixels,c,0.5\n1,1,a,2\n2,1,b,3\n' >"$work/table.csv"
(set -- --quick; . examples/paper/common.sh; means test x kind <"$work/table.csv" | tee "$work/means" |
  wide x kind) >"$work/log" 2>&1
printf 'x,a,pixels,b\n0,2.5000,0.5000,\n1,2.0000,,3.0000\n' >"$work/expected"
if cmp -s "$work/log" "$work/expected" && grep -qx '0,a,2.5000,2.1213,2' "$work/means"
then ok "means and deviations"; else bad "means and deviations"; fi
sh examples/paper/a_depth.sh --step 3 >"$work/log" 2>&1; status=$?
if [ $status = 1 ] && grep -q -e '--seeds' "$work/log" && ! grep -q '^set' "$work/log"
then ok "the options"; else bad "the options"; fi

# why a table cannot be drawn
refused() {   # TABLE WORDS
  if "$plot" "$1" "$work/none.svg" a b c >"$work/log" 2>&1 || [ -e "$work/none.svg" ] ||
    ! grep -qF "$1 cannot be read: $2" "$work/log"
  then bad "a table: $2"; else ok "a table: $2"; fi
}
: >"$work/empty.csv"
refused "$work/empty.csv" "it is empty"
refused "$work/missing.csv" "No such file"
refused "$work" "Is a directory"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
