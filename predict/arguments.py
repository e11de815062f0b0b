"""The flags by which commands take a classifier, and clips of an index for it."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.index import SUBSETS, Index
from errors import UserError
from opts import CLASSIFIER_FLAGS, add_flags
from utils.command_line import INPUT

if TYPE_CHECKING:
    from datasets.video_dataset import ClipLoader, WindowBatches
    from predict.classifier import Classifier

# Of main.py --inference: which windows of which frames.
CLIP_FLAGS = (
    "file_type",
    "inference_stride",
    "inference_batch_size",
    "n_threads",
    "on_bad_video",
    "accimage",
)


def add_classifier_flags(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --labels, and the flags that fill in what the checkpoint does not tell."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", type=INPUT, required=True, help="weights to use: best.pth …")
    group.add_argument(
        "--labels", type=INPUT, help="class names, one a line or an index; for files without names"
    )
    filling = parser.add_argument_group("what the checkpoint tells, unless it is a released one")
    add_flags(filling, CLASSIFIER_FLAGS)


def classifier_of(options: argparse.Namespace) -> "Classifier":
    """Load the classifier of a command line with those flags, and set up this process for it.

    Raises UserError."""
    from engine.device import tune_process
    from predict.classifier import load_classifier

    names = (*CLASSIFIER_FLAGS, *CLIP_FLAGS)
    flags = {name: getattr(options, name) for name in names if hasattr(options, name)}
    classifier = load_classifier(options.checkpoint, labels=options.labels, flags=flags)
    tune_process(classifier.device)
    return classifier


def add_clip_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how the videos of an index become clips."""
    group = parser.add_argument_group("clips, as main.py --inference reads them")
    group.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    add_flags(group, CLIP_FLAGS)


def clips_of(
    classifier: "Classifier", index: Path, frames_dir: Path, subset: str
) -> tuple[Index, "ClipLoader[WindowBatches]"]:
    """An index, and the loader of every window of its subset's videos as the classifier takes
    them. Raises UserError where the frames can't be used."""
    from datasets.activitynet import read_any_index
    from datasets.build import build_inference_loader

    options = replace(classifier.options, video_path=frames_dir, inference_subset=subset)
    if options.input_type == "flow" and options.file_type != "hdf5":
        raise UserError(
            f"{classifier.path}: takes optical flow, which is read from --file_type hdf5, "
            f"not {options.file_type}"
        )
    read = read_any_index(index)
    loader = build_inference_loader(options, read)
    loader.probe()
    return read, loader
