"""What every command shares: errors told in one line, the exit status, the flags of a model."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.annotation import SUBSETS, Index
from errors import UserError
from opts import add_flags
from runtime.interruption import Interruption
from runtime.program import run_program

if TYPE_CHECKING:
    from classifier import Classifier
    from datasets.video_dataset import ClipLoader, WindowBatches

# What a file of the original does not tell, and how to compute.
CLASSIFIER_FLAGS = (
    "model",
    "model_depth",
    "conv1_t_stride",
    "no_max_pool",
    "sample_size",
    "sample_duration",
    "sample_t_stride",
    "mean_dataset",
    "no_mean_norm",
    "no_std_norm",
    "value_scale",
    "precision",
    "no_cuda",
)
# Of main.py --inference: which windows of which frames.
CLIP_FLAGS = (
    "file_type",
    "inference_stride",
    "inference_batch_size",
    "n_threads",
    "on_bad_video",
    "accimage",
)


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Run a command on sys.argv and return its exit status: see run_program. SIGTERM and a terminal
    that is closed end it as Ctrl-C does: it leaves nothing half done, and no process."""

    def watched() -> int:
        with Interruption().watching():
            return main(None)

    return run_program(watched)


def printable(name: str) -> str:
    """A name as it can stand in one line."""
    return name if name.isprintable() else ascii(name)


def add_classifier_flags(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --labels, and the flags that fill in what the checkpoint does not tell."""
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", type=Path, required=True, help="weights to use: best.pth …")
    group.add_argument(
        "--labels", type=Path, help="class names, one a line or an index; for files without names"
    )
    filling = parser.add_argument_group("what the checkpoint tells, unless it is a released one")
    add_flags(filling, CLASSIFIER_FLAGS)


def classifier_of(options: argparse.Namespace) -> "Classifier":
    """The classifier of a command line with those flags, and add_clip_flags' if it has these.

    Raises UserError."""
    from classifier import load_classifier

    names = (*CLASSIFIER_FLAGS, *CLIP_FLAGS)
    flags = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return load_classifier(options.checkpoint, labels=options.labels, flags=flags)


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
