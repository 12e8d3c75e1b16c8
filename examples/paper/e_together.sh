# e_together.sh: one probe on the features of 3, 5 and 7 neighbouring depths, the best one in their
# middle, against that one alone. The paper takes 5 of iGPT-XL: 72.0 % of ImageNet against 68.7.
# Options: common.sh.
. examples/paper/common.sh
echo "seed,depths,test" >"$out/e_together.csv"
for seed in $seeds; do
  train ar-$seed $seed
  lines=$(probe ar-$seed)
  best=$(echo "$lines" | value best_layer)
  echo "$seed,1,$(echo "$lines" | value test_accuracy)" >>"$out/e_together.csv"
  for depths in 3 5 7; do
    echo "$seed,$depths,$(probe ar-$seed --layer $best --together $depths | value test_accuracy)" \
      >>"$out/e_together.csv"
  done
done
means test depths <"$out/e_together.csv" >"$out/e_together.means.csv"
cut -d, -f1,2 "$out/e_together.means.csv" >"$out/e_together.wide.csv"
draw e_together "Neighbouring depths together" depths "test accuracy"
show e_together
