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

# A folder of its own for each source, the same one whenever that source is given.
folder_of() {
    "$PYTHON" - "$1" <<'EOF'
import hashlib, os, re, sys
source = os.path.realpath(os.path.expanduser(sys.argv[1]))
name = re.sub(r"[^\w.]+", "_", os.path.basename(source)).strip("_.")
print("-".join(filter(None, ["demo/own", name, hashlib.sha256(os.fsencode(source)).hexdigest()[:8]])))
EOF
}

own_videos() {
    case $VIDEOS in "~/"*) VIDEOS=$HOME/${VIDEOS#"~/"} ;; esac  # as `make VIDEOS=~/…` passes it on
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
        1) echo "(some files failed, see above; going on with the others)" ;;
        *) exit "$STATUS" ;;
    esac
    show "$PYTHON" -m util_scripts.folder_json "$OWN/jpg" "$OWN/index.json"
    show "$PYTHON" main.py --root_path "$OWN" --video_path jpg --annotation_path index.json \
        --result_path results --dataset folder $MODEL \
        --n_epochs 20 --learning_rate 0.01 --multistep_milestones 15 --inference
    echo
    echo "The videos of $VIDEOS, in $OWN:"
    echo "  jpg                   their frames"
    echo "  index.json            which of them train, which validate"
    echo "  results/report.html   how good the classifier is"
    echo "  results/best.pth      the classifier"
    echo "Started from a Kinetics checkpoint it gets far better: see 'Your own videos' in README.md."
}

drawn_videos() {
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
    echo "and results* (logs, checkpoints); demo/finetuning/results_fc/report.html is the page to look at."
    echo "Your own videos: make demo VIDEOS=folder, or step by step as in README.md."
}

if [ -n "$VIDEOS" ]; then
    own_videos
else
    drawn_videos
fi
