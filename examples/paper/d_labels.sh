# d_labels.sh: a probe on 4, 25 and 400 labelled pictures a class, five draws of them for the model
# of each seed, beside raw pixels and the untrained network (Table 4). The paper's deviation is over
# such draws. Options: common.sh.
. examples/paper/common.sh
some=                             # the other splits stay whole
echo "seed,subset,labels,model,test" >"$out/d_labels.csv"
for seed in $seeds; do
  train ar-$seed $seed
  for labels in ${LABELS:-4 25 400}; do for subset in ${SUBSETS:-1 2 3 4 5}; do
    add() {
      echo "$seed,$subset,$labels,$1,$(probe $2 --layer $3 --labels $labels --seed $subset |
        value test_accuracy)" >>"$out/d_labels.csv"
    }
    add trained ar-$seed all
    add untrained ar-$seed.0 all
    add pixels ar-$seed pixels
  done; done
done
means test labels model <"$out/d_labels.csv" >"$out/d_labels.means.csv"
wide labels model <"$out/d_labels.means.csv" >"$out/d_labels.wide.csv"
draw d_labels "A probe on few labels" "labels a class" "test accuracy" --log
show d_labels
