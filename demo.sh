#!/bin/sh
# Run the commands of the README on a small set of videos: from nothing to a trained classifier.
# usage: PYTHON=python MINUTES=30 sh demo.sh [folder of class folders of videos, or a table of them]
set -eu
PYTHON=${PYTHON:-python3}
VIDEOS=${1:-}
MINUTES=${MINUTES:-30}  # for own videos
MODEL="--model resnet --model_depth 10 --resnet_widen_factor 0.5 --sample_size 64 --n_threads 2"

show() {
    echo
    echo "\$ $*"
    "$@"
}

# Print the output folder for a source: a separate one for each, the same on every run.
folder_of() {
    "$PYTHON" - "$1" <<'EOF'
import hashlib, os, re, sys
source = os.path.realpath(os.path.expanduser(sys.argv[1]))
name = re.sub(r"[^\w.]+", "_", os.path.basename(source)).strip("_.")
print("-".join(filter(None, ["demo/own", name, hashlib.sha256(os.fsencode(source)).hexdigest()[:8]])))
EOF
}

own_videos() {
    case $VIDEOS in "~/"*) VIDEOS=$HOME/${VIDEOS#"~/"} ;; esac  # make VIDEOS=~/… does not expand it
    show "$PYTHON" -m util_scripts.train_videos "$VIDEOS" --out "$(folder_of "$VIDEOS")" \
        --minutes "$MINUTES"
}

generated_videos() {
    show "$PYTHON" -m util_scripts.make_demo_videos demo
    for SET in pretraining finetuning; do
        show "$PYTHON" -m util_scripts.generate_video_jpgs "demo/$SET/videos" "demo/$SET/jpg" demo --size 72
        show "$PYTHON" -m util_scripts.ucf101_json "demo/$SET/lists" "demo/$SET/jpg" "demo/$SET"
    done
    show "$PYTHON" main.py --root_path demo/pretraining --video_path jpg \
        --annotation_path ucf101_01.json --result_path results --dataset ucf101 --n_classes 6 $MODEL \
        --recipe scratch_small --n_epochs 16 --checkpoint 16 --colorjitter
    for BEGIN in fc layer4 all; do
        case $BEGIN in
            all) HOW="--recipe scratch_small --learning_rate 1e-3" ;;
            *) HOW="--ft_begin_module $BEGIN --batch_size 16 --learning_rate 0.01 --multistep_milestones 9" ;;
        esac
        show "$PYTHON" main.py --root_path demo/finetuning --video_path jpg \
            --annotation_path ucf101_01.json --result_path "results_$BEGIN" --dataset ucf101 \
            --n_classes 4 --n_pretrain_classes 6 --pretrain_path ../pretraining/results/save_16.pth \
            $MODEL $HOW --n_epochs 12 --checkpoint 12 --colorjitter
        show "$PYTHON" main.py --root_path demo/finetuning --video_path jpg \
            --annotation_path ucf101_01.json --result_path "results_$BEGIN" --dataset ucf101 \
            --n_classes 4 $MODEL --resume_path "results_$BEGIN/save_12.pth" \
            --no_train --no_val --inference --output_topk 5 --inference_batch_size 1
        show "$PYTHON" -m util_scripts.eval_accuracy demo/finetuning/ucf101_01.json \
            "demo/finetuning/results_$BEGIN/val.json" -k 1
    done
    echo
    echo "In demo/pretraining and demo/finetuning: videos, jpg (frames), lists, ucf101_01.json (index)"
    echo "and results* (logs, checkpoints); open demo/finetuning/results_fc/report.html in a browser."
    echo "For your own videos: make demo VIDEOS=folder, or docs/own-videos.md."
}

if [ -n "$VIDEOS" ]; then
    own_videos
else
    generated_videos
fi
