# common.sh: what the scripts in this folder share; each reads it with `.` from the repository's
# root, where it is started:  sh examples/paper/a_depth.sh [OPTION VALUE ...]
#
#   --data PATH      pictures with labels (default: CIFAR-10 in data/cifar-10-batches-bin)
#   --other PATH     g_transfer.sh: other pictures to pre-train on
#   --out DIR        for models, tables and curves (default: build/paper)
#   --seeds "1 2 3"  one run each; tables tell mean and deviation over them
#   --steps N        of pre-training (default: 4000)
#   --tune N         of fine-tuning (default: 1000)
#   --shape "..."    options of the network for pretrain (default: 8 x 8 pixels, 8 layers of 128)
#   --count N        pictures of each split that probes and fine-tuning see (default: all)
#   --quick          seconds, to see that it runs: the numbers say nothing
#
# Models that are there already are not trained again: a script that was stopped goes on.
set -eu
tool=${TOOL:-build/igpt} plot=${PLOT:-build/plot_csv}
data=data/cifar-10-batches-bin other= out=build/paper seeds="1 2 3" steps=4000 tune=1000 count=
shape="--side 8 --layers 8 --width 128 --colours 512 --batch 32" rate=0.004
while [ $# -gt 0 ]; do
  case $1 in
    --quick)
      data=shapes:400 out=${QUICK:-build/paper-quick} seeds="1 2" steps=4 tune=2 count=60 rate=0.003
      shape="--side 8 --layers 2 --width 16 --heads 2 --colours 16 --batch 4 --pixels 4000" ;;
    --data | --other | --out | --seeds | --steps | --tune | --shape | --count)
      [ $# -gt 1 ] || { echo "$0: $1 needs a value" >&2; exit 1; }
      eval "${1#--}=\$2"; shift ;;
    *)
      sed -n '1,/^set/s/^# \{0,1\}//p' examples/paper/common.sh
      [ "$1" = --help ] && exit 0
      echo "$0: there is no option $1" >&2
      exit 1 ;;
  esac
  shift
done
mkdir -p "$out"
[ -x "$tool" ] && [ -x "$plot" ] || make -s build/igpt build/plot_csv
from=
some=${count:+--count $count}     # words, unquoted where they are used

# train NAME SEED OPTION...: $out/NAME.safetensors, and NAME.0.safetensors before the first step, on
# the pictures of $from, if that is set
train() {
  name=$1 seed=$2; shift 2
  [ -f "$out/$name.safetensors" ] ||
    "$tool" pretrain --data "${from:-$data}" $shape --rate $rate --seed $seed --steps $steps \
      --eval-count 500 --snapshots --out "$out/$name.safetensors" "$@" >"$out/$name.log"
}

# probe NAME OPTION...: a JSON line a depth
probe() {
  name=$1; shift
  "$tool" probe --model "$out/$name.safetensors" --data "$data" $some --json "$@"
}

# finetune NAME START OPTION...: $out/NAME.safetensors, and its line of results
finetune() {
  name=$1 start_from=$2; shift 2
  "$tool" finetune --model "$out/$start_from.safetensors" --data "$data" $some --steps $tune \
    --batch 32 --eval-count 500 --rate 0.0004 --json --out "$out/$name.safetensors" "$@"
}

# value KEY: of the last JSON line on standard input that has it
value() { sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\).*/\1/p" | tail -n 1; }

# depths: "layer": L, "val": V, "test": T   ->   L,V,T for each JSON line of a probe
depths() {
  sed -n 's/.*"layer": \(.*\), "val": \(.*\), "test": \(.*\)}/\1,\2,\3/p' | tr -d '"'
}

# means COLUMN KEY...: of a CSV file on standard input with a header, which names the columns: mean,
# deviation and number of COLUMN for each combination of the KEYs, in the order of the first rows
means() {
  awk -F, -v column="$1" -v keys="$(shift; echo "$*")" '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; n = split(keys, key, " ")
              for (i = 1; i <= n; i++) printf "%s,", key[i]
              print "mean,deviation,runs"; next }
    { k = ""; for (i = 1; i <= n; i++) k = k $at[key[i]] ","
      if (!(k in runs)) order[++groups] = k
      x = $at[column]; runs[k]++; sum[k] += x; squares[k] += x * x }
    END { for (g = 1; g <= groups; g++) { k = order[g]; r = runs[k]; mean = sum[k] / r
            spread = r > 1 ? (squares[k] - r * mean * mean) / (r - 1) : 0
            printf "%s%.4f,%.4f,%d\n", k, mean, sqrt(spread > 0 ? spread : 0), r } }'
}

# wide X SERIES: from the output of means, a column of means for each value of SERIES, a row for
# each value of X; where X is not a number it is a level: its value stands in the first row alone
wide() {
  awk -F, -v x="$1" -v series="$2" '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    { row = $at[x]; column = $at[series]
      if (row !~ /^[0-9.]+$/) { column = row; level[column] = $at["mean"] }
      else if (!(row in seen)) { seen[row] = 1; rows[++m] = row }
      if (!(column in had)) { had[column] = 1; columns[++n] = column }
      cell[row, column] = $at["mean"] }
    END { printf "%s", x; for (j = 1; j <= n; j++) printf ",%s", columns[j]; print ""
          for (i = 1; i <= m; i++) { printf "%s", rows[i]
            for (j = 1; j <= n; j++) { c = columns[j]
              printf ",%s", c in level ? (i == 1 ? level[c] : "") : cell[rows[i], c] }
            print "" } }'
}

# draw NAME TITLE X Y [--log]: $out/NAME.svg from $out/NAME.wide.csv
draw() { "$plot" ${5:-} "$out/$1.wide.csv" "$out/$1.svg" "$2" "$3" "$4"; }

# show NAME: the table of means
show() { echo "== $1"; cat "$out/$1.means.csv"; echo "$out/$1.csv $out/$1.means.csv $out/$1.svg"; }
