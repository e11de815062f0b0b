#!/bin/sh
# From nothing to a trained classifier: the README's command lines on a small set of videos.
# usage: PYTHON=python sh demo.sh [folder of class folders of videos]
set -eu
PYTHON=${PYTHON:-python3}
VIDEOS=${1:-}
MODEL="--model resnet --model_depth 10 --resnet_widen_factor 0.5 --sample_size 64 --batch_size 16 --n_threads 2"

show() {
    echo
    echo "\$ $*"
    "$@"
}

if [ -n "$VIDEOS" ]; then
    OWN=demo/own
    mkdir -p "$OWN"
    show "$PYTHON" -m util_scripts.generate_video_jpgs "$VIDEOS" "$OWN/jpg" own || echo "(some files failed, see above)"
    show "$PYTHON" -m util_scripts.folder_json "$OWN/jpg" "$OWN/index.json"
    CLASSES=$("$PYTHON" -c "import json, sys; print(len(json.load(open(sys.argv[1], encoding='utf-8'))['labels']))" "$OWN/index.json")
    show "$PYTHON" main.py --root_path "$OWN" --video_path jpg --annotation_path index.json \
        --result_path results --dataset folder --n_classes "$CLASSES" $MODEL \
        --n_epochs 20 --learning_rate 0.01 --multistep_milestones 15 --inference
    echo
    echo "Frames, index and results are in $OWN; $OWN/results/save_20.pth is the classifier."
    echo "With a Kinetics checkpoint it gets far better: see 'Your own videos' in README.md."
    exit 0
fi

show "$PYTHON" -m util_scripts.make_demo_videos demo
for SET in pretraining finetuning; do
    show "$PYTHON" -m util_scripts.generate_video_jpgs "demo/$SET/videos" "demo/$SET/jpg" demo --size 72
    show "$PYTHON" -m util_scripts.ucf101_json "demo/$SET/lists" "demo/$SET/jpg" "demo/$SET"
done
show "$PYTHON" main.py --root_path demo/pretraining --video_path jpg \
    --annotation_path ucf101_01.json --result_path results --dataset ucf101 --n_classes 6 $MODEL \
    --n_epochs 16 --learning_rate 0.01 --multistep_milestones 12 --checkpoint 16 --colorjitter
for BEGIN in fc layer4; do
    show "$PYTHON" main.py --root_path demo/finetuning --video_path jpg \
        --annotation_path ucf101_01.json --result_path "results_$BEGIN" --dataset ucf101 \
        --n_classes 4 --n_pretrain_classes 6 --pretrain_path ../pretraining/results/save_16.pth \
        --ft_begin_module "$BEGIN" $MODEL --n_epochs 12 --learning_rate 0.01 \
        --multistep_milestones 9 --checkpoint 12 --colorjitter
    show "$PYTHON" main.py --root_path demo/finetuning --video_path jpg \
        --annotation_path ucf101_01.json --result_path "results_$BEGIN" --dataset ucf101 \
        --n_classes 4 $MODEL --resume_path "results_$BEGIN/save_12.pth" \
        --no_train --no_val --inference --output_topk 5 --inference_batch_size 1
    show "$PYTHON" -m util_scripts.eval_accuracy demo/finetuning/ucf101_01.json \
        "demo/finetuning/results_$BEGIN/val.json" -k 1
done
echo
echo "Videos, frames, indexes, logs and checkpoints are in ./demo."
echo "Your own videos: make demo VIDEOS=folder, or step by step as in README.md."
