# g_transfer.sh: pre-training on pictures of other classes (--other: a folder such as that of Tiny
# ImageNet), as the paper does, beside pre-training on those of --data itself, with the same steps;
# probe and fine-tuning on --data. Options: common.sh.
. examples/paper/common.sh
[ -n "$other" ] || { echo "$0: --other needs a folder of pictures" >&2; exit 1; }
echo "seed,source,layer,val,test" >"$out/g_transfer.csv"
echo "seed,source,test" >"$out/g_transfer.tuned.csv"
for seed in $seeds; do
  train ar-$seed $seed
  from=$other
  train other-$seed $seed --palette "$out/ar-$seed.safetensors"
  from=
  for source in own other; do
    name=$source-$seed
    [ $source = other ] || name=ar-$seed
    probe $name | grep -v pixels | depths | sed "s/^/$seed,$source,/" >>"$out/g_transfer.csv"
    echo "$seed,$source,$(finetune g-$source-$seed $name --seed $seed | value test_accuracy)" \
      >>"$out/g_transfer.tuned.csv"
  done
done
means test layer source <"$out/g_transfer.csv" >"$out/g_transfer.means.csv"
wide layer source <"$out/g_transfer.means.csv" >"$out/g_transfer.wide.csv"
draw g_transfer "Pre-trained on the same pictures, or on others" depth "test accuracy"
show g_transfer
means test source <"$out/g_transfer.tuned.csv" | tee "$out/g_transfer.tuned.means.csv"
