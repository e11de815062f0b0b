"""Flags of the commands that run a classifier on the videos of an index."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.index import SUBSETS, Index
from errors import UserError
from flags import Role
from opts import names_with
from parsing import add_flags
from utils.command_line import INPUT

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from datasets.video_dataset import ClipLoader, WindowBatches
    from predict.classifier import Classifier


def add_classifier_flags(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint, --labels, and flags for what the checkpoint does not say."""
    group = parser.add_argument_group("model")
    text = "weights, such as best.pth, or the name of hosted ones, such as torchvision:r3d_18"
    group.add_argument("--checkpoint", type=INPUT, required=True, help=text)
    group.add_argument(
        "--labels",
        type=INPUT,
        help="class names, for a checkpoint without them: a text file with one per line, or an "
        "index JSON",
    )
    title = "needed only for checkpoints that do not hold their options, such as released ones"
    saved = names_with(Role.CLASSIFIER, without=Role.INFERENCE)
    add_flags(parser.add_argument_group(title), saved)
    add_flags(parser.add_argument_group("machine"), names_with(Role.CLASSIFIER | Role.INFERENCE))


def classifier_of(options: argparse.Namespace) -> "Classifier":
    """Load the classifier of a command line with add_classifier_flags, and add_clip_flags if used,
    and set up this process for it. Raises UserError."""
    from engine.device import tune_process
    from predict.classifier import load_classifier

    names = (*names_with(Role.CLASSIFIER), *names_with(Role.WINDOWS))
    flags = {name: getattr(options, name) for name in names if hasattr(options, name)}
    classifier = load_classifier(options.checkpoint, labels=options.labels, flags=flags)
    tune_process(classifier.device)
    return classifier


def add_clip_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for reading the clips of an index."""
    group = parser.add_argument_group("clips, as in main.py --inference")
    group.add_argument("--subset", default="validation", choices=tuple(SUBSETS))
    add_flags(group, names_with(Role.WINDOWS))


def clips_of(
    classifier: "Classifier", index: Path, frames_dir: Path, subset: str
) -> tuple[Index, "ClipLoader[WindowBatches]"]:
    """Read an index, and make a loader of all windows of the videos in `subset`, in the shape that
    the classifier takes. Raises UserError where the frames cannot be used."""
    from datasets.activitynet import read_any_index
    from datasets.build import build_inference_loader
    from datasets.frame_rate import find_frame_rate

    options = replace(classifier.options, video_path=frames_dir, inference_subset=subset)
    if options.input_type == "flow" and options.file_type != "hdf5":
        raise UserError(
            f"{classifier.path}: takes optical flow, which needs --file_type hdf5, not "
            f"{options.file_type}"
        )
    read = read_any_index(index)
    rate = find_frame_rate(read, frames_dir, options.file_type)
    if rate is not None and (text := classifier.rate_mismatch(rate)):
        log.warning("%s", text)
    loader = build_inference_loader(options, read)
    loader.probe()
    return read, loader
