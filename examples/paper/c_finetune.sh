# c_finetune.sh: fine-tuning with both losses or with that of classes alone, from a trained network
# or an untrained one, AR and BERT, the latter with one mask a test picture and with the vote of
# five. The paper: both losses are better, and so is training before; the vote is worth little on
# CIFAR-10. Options: common.sh.
. examples/paper/common.sh
echo "seed,model,start,loss,votes,test" >"$out/c_finetune.csv"
echo "step,run,val" >"$out/c_finetune.runs.csv"
for seed in $seeds; do
  train ar-$seed $seed
  train bert-$seed $seed --objective bert --palette "$out/ar-$seed.safetensors"
  for model in ar bert; do for start in trained untrained; do for loss in both class; do
    begin=$model-$seed run=c-$model-$start-$loss-$seed
    [ $start = trained ] || begin=$begin.0
    generative=1
    [ $loss = both ] || generative=0
    finetune $run $begin --seed $seed --generative $generative --votes 1 >"$out/$run.log"
    one=$(value test_accuracy <"$out/$run.log")
    echo "$seed,$model,$start,$loss,1,$one" >>"$out/c_finetune.csv"
    tail -n +2 "$out/$run.csv" |
      awk -F, -v run="$model $start $loss" '{ print $1 "," run "," $3 }' \
      >>"$out/c_finetune.runs.csv"
    [ $model = bert ] || continue
    five=$("$tool" classify --model "$out/$run.safetensors" --data "$data" $some --split test --votes 5 |
             sed -n 's/ % of .* are right//p')
    echo "$seed,$model,$start,$loss,5,$(echo "$five" | awk '{ print $1 / 100 }')" \
      >>"$out/c_finetune.csv"
  done; done; done
done
means test model start loss votes <"$out/c_finetune.csv" >"$out/c_finetune.means.csv"
means val step run <"$out/c_finetune.runs.csv" | wide step run >"$out/c_finetune.wide.csv"
draw c_finetune "Fine-tuning" step "validation accuracy"
show c_finetune
