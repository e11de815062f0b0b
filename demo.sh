#!/bin/sh
# Run the commands of the README on a small set of videos: from nothing to a trained classifier.
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
    if [ ! -d "$VIDEOS" ]; then
        echo "error: $VIDEOS: no such folder of videos" >&2
        exit 2
    fi
    OWN=$(folder_of "$VIDEOS")
    mkdir -p "$OWN"
    STATUS=0
    show "$PYTHON" -m util_scripts.generate_video_jpgs "$VIDEOS" "$OWN/jpg" own || STATUS=$?
    case $STATUS in
        0) ;;
        1) echo "(some files failed, see above; continuing with the others)" ;;
        *) exit "$STATUS" ;;
    esac
    show "$PYTHON" -m util_scripts.folder_json "$OWN/jpg" "$OWN/index.json"
    show "$PYTHON" main.py --root_path "$OWN" --video_path jpg --annotation_path index.json \
        --result_path results --dataset folder $MODEL \
        --n_epochs 20 --learning_rate 0.01 --multistep_milestones 15 --inference
    echo
    echo "Results for $VIDEOS, in $OWN:"
    echo "  jpg                   extracted frames"
    echo "  index.json            training and validation videos"
    echo "  results/report.html   report with the accuracy"
    echo "  results/best.pth      trained classifier"
    echo "A Kinetics checkpoint gives far better accuracy: see 'Your own videos' in README.md."
}

generated_videos() {
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
    echo "In demo/pretraining and demo/finetuning: videos, jpg (frames), lists, ucf101_01.json (index)"
    echo "and results* (logs, checkpoints); open demo/finetuning/results_fc/report.html in a browser."
    echo "For your own videos: make demo VIDEOS=folder, or the steps in README.md."
}

if [ -n "$VIDEOS" ]; then
    own_videos
else
    generated_videos
fi
