# h_masks.sh: does the auto-encoding objective (BERT) learn more when what is hidden has two
# dimensions? Single pixels, squares of several sizes, and a jigsaw of patches, each 15 % of the
# picture; same network, same steps; probed on whole pictures and fine-tuned on them. The paper
# hides single pixels alone. Options: common.sh.
. examples/paper/common.sh
masks=${MASKS:-pixel block:2 block:4 jigsaw:2 jigsaw:4}
echo "seed,mask,layer,val,test" >"$out/h_masks.csv"
echo "seed,mask,test" >"$out/h_masks.tuned.csv"
for seed in $seeds; do for mask in $masks; do
  name=h-$(echo $mask | tr : -)-$seed
  train $name $seed --objective bert --mask $mask
  probe $name --mask none --votes 1 | grep -v pixels | depths | sed "s/^/$seed,$mask,/" \
    >>"$out/h_masks.csv"
  echo "$seed,$mask,$(finetune $name-tuned $name --seed $seed --mask none --votes 1 |
    value test_accuracy)" >>"$out/h_masks.tuned.csv"
done; done
means test layer mask <"$out/h_masks.csv" >"$out/h_masks.means.csv"
wide layer mask <"$out/h_masks.means.csv" >"$out/h_masks.wide.csv"
draw h_masks "What BERT hides: a probe at every depth" depth "test accuracy"
show h_masks
means test mask <"$out/h_masks.tuned.csv" | tee "$out/h_masks.tuned.means.csv"
