#!/bin/bash
# The laptop study, command by command, a night on two cores: steps 3 to 7
# took 13.4 hours of a core. Each goes on where it stopped: run it again after a break.
set -euo pipefail
cd "$(dirname "$0")/../.."

# 1. Jets: 100,000 of each JetClass-II bucket, 460,000 of JetClass to fine-tune on and 20,000 to test
python -m jetscale.simulate dataset=jetclass2 n_jets=300000 n_val=0 n_test=0
python -m jetscale.simulate dataset=jetclass n_jets=460000 n_val=0 n_test=20000
python -m jetscale.prepare

# 2. What the compositions are
python -m jetscale.composition compare out=studies/laptop/compositions/all_classes
python -m jetscale.composition compare 'downstream=[H4q,Hqql,Tbqq]' out=studies/laptop/compositions/multi_prong

# 3. Learning rate first: the grid, and one rate further where its best was at the edge
TWO="hydra/launcher=joblib hydra.launcher.n_jobs=2 tracking.wandb=disabled"
python -m jetscale.train -m $TWO +sweep=laptop_rates
python -m jetscale.train -m $TWO +sweep=laptop_rates model.dim=8 finetune.lr=1.6e-2
python -m jetscale.train -m $TWO +sweep=laptop_rates model.dim=48,64 finetune.lr=5e-4
python -m jetscale.analysis.rates path=multirun/laptop_rates out=studies/laptop/rates

FIT="source=local blocks=125"

# 4. The paper's subsets at its constant rate
python -m jetscale.train -m $TWO +sweep=laptop
python -m jetscale.analysis $FIT path=multirun/laptop out=studies/laptop/paper_rate

# 5. The same at the rate of step 3 (conf/budget/laptop_tuned.yaml)
python -m jetscale.train -m $TWO +sweep=laptop_tuned
python -m jetscale.analysis $FIT path=multirun/laptop_tuned out=studies/laptop/tuned_rate where='pretrain_jets in (0, 100000)'

# 6. The 2 x 2 design, on 20,000 pretraining jets each
python -m jetscale.train -m $TWO +sweep=laptop_design
python -m jetscale.analysis $FIT path=multirun/laptop_tuned out=studies/laptop/design where='pretrain_jets in (0, 20000)'

# 7. A quarter and a half of the pretraining
python -m jetscale.train -m $TWO +sweep=laptop_budget
python -m jetscale.analysis $FIT path=multirun/laptop_tuned out=studies/laptop/pretraining \
    where='subset in ["scratch", "qcd", "bsm_all"] and pretrain_jets != 20000 and dim in (8, 32)'

# 8. Steps 4 to 7 were run on jets of version 1 of the simulator. Version 2 makes them now, so scratch, qcd and bsm_all
# of step 5 were run again:
#   python -m jetscale.train -m $TWO +sweep=laptop_tuned +experiment=scratch,qcd,bsm_all
#   python -m jetscale.analysis $FIT path=multirun/laptop_tuned out=studies/laptop/simulator_2 where='pretrain_jets in (0, 100000)'

# 9. Alignment by kind of decay, on more jets in a folder of their own, with the scratch runs of step 8
DECAYS="dir=data/decays names=[multi_prong,qcd_flavours]"
python -m jetscale.simulate dataset=jetclass2 n_jets=600000 n_val=0 n_test=0 buckets.Res2P=0 seed=1 out=data/decays
ln -sfn ../JetClass data/decays/JetClass
python -m jetscale.prepare dir=data/decays
python -m jetscale.composition compare $DECAYS out=studies/laptop/compositions/decays
python -m jetscale.composition compare $DECAYS 'downstream=[H4q,Hqql,Tbqq]' out=studies/laptop/compositions/decays_multi_prong
python -m jetscale.train -m $TWO +sweep=laptop_decays data.dir=data/decays
python -m jetscale.analysis $FIT path=multirun/laptop_tuned out=studies/laptop/decays where='pretrain_jets in (0, 18560)'

# The reports hold every figure; the page shows some
find studies/laptop -name '*.svg' -delete
find studies/laptop \( -name 'residuals_*.png' -o -name overview.png -o -name multiverse.png -o -name forest.png \) -delete
find studies/laptop/{tuned_rate,design,pretraining,simulator_2,decays} -name 'subset_*.png' -delete
find studies/laptop/paper_rate -name 'subset_*.png' ! -name subset_bsm_all.png -delete
