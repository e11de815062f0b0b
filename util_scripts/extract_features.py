"""One vector per video, or per window, from any layer of a trained model.

The videos and windows are those of main.py --inference. By default a vector is what the head gets;
--layer takes any module's output by its name in the checkpoint (layer3, layer4.1.conv2, fc …), and
of one that has time and space the mean over these. A video's vector is the mean over its windows.

OUT.npz or OUT.hdf5 holds, row by row, features (float32), video_ids, labels (class numbers of the
index, -1 where there is none) and segments (first frame, last + 1); and label_names, and about: the
checkpoint, the layer and the clips, as JSON.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.hdf5 import Hdf5Writer, require_h5py
from datasets.index import SUBSETS
from errors import UserError
from predict.arguments import add_classifier_flags, add_clip_flags, classifier_of, clips_of
from utils.command_line import (
    INPUT,
    OutputPath,
    Parser,
    run,
)
from utils.files import written_whole
from utils.outputs import FEATURES

if TYPE_CHECKING:
    from datasets.video_dataset import ClipLoader, WindowBatches
    from inference import WindowValues
    from predict.classifier import Classifier

HDF5_SUFFIXES = (".hdf5", ".h5")
SUFFIXES = (".npz", *HDF5_SUFFIXES)
CLIPS_TOLD = ("sample_size", "sample_duration", "sample_t_stride", "inference_stride")


def columns_of(n_rows: int, width: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of each column; names become text of their own length."""
    return {
        "features": ((n_rows, width), np.float32),
        "video_ids": ((n_rows,), object),
        "labels": ((n_rows,), np.int64),
        "segments": ((n_rows, 2), np.int64),
    }


def fill(
    columns: Mapping[str, Any],
    rows: Iterator["WindowValues"],
    loader: "ClipLoader",
    text: Callable[[str], str | bytes] = str,
) -> int:
    """Put every row into the columns as it comes; how many there were."""
    count = 0
    for row in rows:
        record = loader.dataset.records[row.video]
        columns["features"][count] = row.values
        columns["video_ids"][count] = text(record.video_id)
        columns["labels"][count] = record.label
        columns["segments"][count] = row.segment
        count += 1
    return count


def write_npz(path: Path, shapes: Mapping[str, Any], rows: "Iterator[WindowValues]",
              loader: "ClipLoader", rest: Mapping[str, Any]) -> int:  # fmt: skip
    """All in memory, then written. Returns the number of rows."""
    columns = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
    count = fill(columns, rows, loader)
    arrays: dict[str, Any] = {name: column[:count] for name, column in columns.items()}
    arrays["video_ids"] = arrays["video_ids"].astype(str)
    arrays |= {name: np.array(value) for name, value in rest.items()}
    np.savez(path, **arrays)
    return count


def write_hdf5(path: Path, shapes: Mapping[str, Any], rows: "Iterator[WindowValues]",
               loader: "ClipLoader", rest: Mapping[str, Any]) -> int:  # fmt: skip
    """Row by row, so that memory does not grow. Returns the number of rows."""
    import h5py

    text = h5py.string_dtype()
    with Hdf5Writer(path) as writer:
        # First, so that all names stand at the start of the file, where they show what it is.
        for name, value in rest.items():
            writer.file.create_dataset(name, data=np.vectorize(os.fsencode)(value), dtype=text)
        columns = {
            name: writer.file.create_dataset(
                name, shape, text if dtype is object else dtype, maxshape=shape, chunks=True
            )
            for name, (shape, dtype) in shapes.items()
        }
        checked = (row for row in rows if writer.check() is None)  # stop when the disk is full
        count = fill(columns, checked, loader, os.fsencode)  # names may be no text
        for column in columns.values():
            column.resize(count, axis=0)
    return count


def about(classifier: "Classifier", options: argparse.Namespace) -> dict[str, Any]:
    from predict.features import name_of

    plain = classifier.options.as_plain()
    return {
        "checkpoint": str(classifier.path),
        "arch": classifier.options.arch,
        "layer": name_of(classifier, options.layer),
        "per": options.per,
        "index": str(options.index),
        "subset": SUBSETS[options.subset],
        "precision": classifier.device.precision,
    } | {name: plain[name] for name in CLIPS_TOLD}


def extract(classifier: "Classifier", options: argparse.Namespace) -> tuple[int, int]:
    """Write the file; its rows and columns. Raises UserError."""
    index, loader = clips_of(classifier, options.index, options.frames_dir, options.subset)
    with closing(loader):
        return _write(classifier, options, loader, index.labels)


def _write(
    classifier: "Classifier",
    options: argparse.Namespace,
    loader: "ClipLoader[WindowBatches]",
    labels: Sequence[str],
) -> tuple[int, int]:
    from inference import by_video, over_windows
    from predict.features import feature_scorer

    compute = feature_scorer(classifier, options.layer)
    rows = over_windows(compute, loader, device=classifier.device, task="features")
    n_rows = sum(loader.batches.window_counts.values())
    if options.per == "video":
        rows, n_rows = by_video(rows), len(loader.dataset)
    first = next(rows, None)
    if first is None:
        raise UserError("every video was left out as unreadable")
    width = len(first.values)
    write = write_npz if options.out.suffix == ".npz" else write_hdf5
    rest = {
        "label_names": list(labels),
        "about": json.dumps(about(classifier, options), allow_nan=False),
    }
    with written_whole(options.out) as part:
        count = write(part, columns_of(n_rows, width), chain([first], rows), loader, rest)
    if loader.skipped:
        print(f"{len(loader.skipped)} samples could not be read, and are not in the file")
    return count, width


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="util_scripts.extract_features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", type=INPUT, help="index JSON of the videos")
    parser.add_argument("frames_dir", type=INPUT, help="folder of their frames")
    parser.add_argument(
        "out", type=OutputPath(FEATURES), help="file to write: " + ", ".join(SUFFIXES)
    )
    parser.add_argument("--per", choices=("video", "window"), default="video", help="(video)")
    parser.add_argument("--layer", default="", help="module by name (what goes into the head)")
    add_classifier_flags(parser)
    add_clip_flags(parser)
    options = parser.parse_args(argv)
    if options.out.suffix not in SUFFIXES:
        raise UserError(f"{options.out}: its name must end in {' or '.join(SUFFIXES)}")
    if options.out.suffix in HDF5_SUFFIXES:
        require_h5py()
    count, width = extract(classifier_of(options), options)
    print(f"{options.out}: {count} vectors of {width} numbers, one per {options.per}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
