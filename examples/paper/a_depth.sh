# a_depth.sh: probe accuracy by depth (the paper's Figure 2), of AR and BERT models, beside what
# needs no training: raw pixels, how often each colour is there, and the same network untrained.
# The paper: a steep rise, the best depth in the middle, a gentle fall. Options: common.sh.
. examples/paper/common.sh
echo "seed,model,layer,val,test" >"$out/a_depth.csv"
add() { depths | sed "s/^/$1,$2,/" >>"$out/a_depth.csv"; }
for seed in $seeds; do
  train ar-$seed $seed
  train bert-$seed $seed --objective bert --palette "$out/ar-$seed.safetensors"
  probe ar-$seed --layer pixels,histogram | add $seed control
  for model in ar bert; do
    probe $model-$seed | grep -v pixels | add $seed $model
    probe $model-$seed.0 | grep -v pixels | add $seed "untrained $model"
  done
done
means test layer model <"$out/a_depth.csv" >"$out/a_depth.means.csv"
wide layer model <"$out/a_depth.means.csv" >"$out/a_depth.wide.csv"
draw a_depth "A linear probe at every depth" depth "test accuracy"
show a_depth
