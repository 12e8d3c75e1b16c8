# f_size.sh: pictures of 16, 24 and 32 pixels a side, and palettes of 16, 64 and 512 colours, with
# equal compute: --steps is for 16 x 16 and 512 colours, the others take as many as give the same
# FLOPs. Nats of different palettes and sides do not compare; probes do. The paper: larger pictures
# serve large models only; it has one palette. Options: common.sh.
. examples/paper/common.sh
sides=${SIDES:-16 24 32} palettes=${PALETTES:-16 64 512}
shape=$(echo "$shape" | sed 's/--side [0-9]*//; s/--colours [0-9]*//')
network=$(echo "$shape" | sed 's/--batch [0-9]*//; s/--pixels [0-9]*//')
flops() { "$tool" plan $network --side $1 --colours $2 --json | value train_flops; }
all=$steps reference=$(flops 16 512)
echo "seed,side,colours,steps,nats,test" >"$out/f_size.csv"
for seed in $seeds; do for side in $sides; do for colours in $palettes; do
  steps=$(awk -v n=$all -v a=$reference -v b=$(flops $side $colours) \
    'BEGIN { s = int(n * a / b + 0.5); print s < 1 ? 1 : s }')
  name=f-$side-$colours-$seed
  train $name $seed --side $side --colours $colours --evaluations 1
  echo "$seed,$side,$colours,$steps,$(tail -n 1 "$out/$name.csv" | cut -d, -f3),$(
    probe $name | value test_accuracy)" >>"$out/f_size.csv"
done; done; done
means test side colours <"$out/f_size.csv" >"$out/f_size.means.csv"
sed '2,$s/^\([0-9]*\),\([0-9]*\),/\1,\2 colours,/' "$out/f_size.means.csv" | wide side colours \
  >"$out/f_size.wide.csv"
draw f_size "Equal compute" "pixels a side" "test accuracy"
show f_size
