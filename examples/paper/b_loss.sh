# b_loss.sh: validation loss against the best depth's probe accuracy over the course of training
# (Figure 3: the better a model predicts pixels, the better its features). Options: common.sh.
. examples/paper/common.sh
echo "seed,step,nats,layer,val,test" >"$out/b_loss.csv"
for seed in $seeds; do
  train ar-$seed $seed
  tail -n +2 "$out/ar-$seed.csv" | while IFS=, read -r step _ nats _; do
    lines=$(probe ar-$seed.$step | grep -v pixels)
    best=$(echo "$lines" | depths | sort -t, -k2,2nr | head -n 1)
    echo "$seed,$step,$nats,$best" >>"$out/b_loss.csv"
  done
done
awk -F, -v seeds="$seeds" '
  NR == 1 { n = split(seeds, seed, " "); printf "nats"
            for (j = 1; j <= n; j++) printf ",seed %s", seed[j]; print ""; next }
  { printf "%s", $3; for (j = 1; j <= n; j++) printf ",%s", seed[j] == $1 ? $6 : ""; print "" }
  ' "$out/b_loss.csv" >"$out/b_loss.wide.csv"
draw b_loss "Loss and features over training" "validation nats per pixel" "test accuracy"
means test step <"$out/b_loss.csv" >"$out/b_loss.means.csv"
show b_loss
