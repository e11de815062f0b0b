"""What every command shares: errors told in one line, the exit status, the flags of a model."""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError
from opts import add_flags

if TYPE_CHECKING:
    from classifier import Classifier

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


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Run a command on sys.argv and return its exit status: 2 for a UserError, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):  # names that are no text are printed all the same
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


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
    """The classifier of a command line with those flags. Raises UserError."""
    from classifier import load_classifier

    flags = {name: getattr(options, name) for name in CLASSIFIER_FLAGS if hasattr(options, name)}
    return load_classifier(options.checkpoint, labels=options.labels, flags=flags)
