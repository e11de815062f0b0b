"""Compute one vector per video, or per window, from any layer of a trained model.

Videos and windows are those of main.py --inference. By default a vector is the input of the head;
--layer takes the output of any module by its name in the checkpoint (layer3, layer4.1.conv2, fc …),
averaged over time and space if it has those dimensions. A video's vector is the mean over its
windows.

OUT.npz or OUT.hdf5 contains one row per vector: features (float32), video_ids, labels (class
numbers of the index, -1 if unlabelled) and segments (first frame, last + 1). It also contains
label_names, and about: the checkpoint, the layer and the clips, as JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from datasets.hdf5 import require_h5py
from datasets.index import SUBSETS
from errors import UserError
from flags import Role
from opts import names_with
from predict.arguments import add_classifier_flags, add_clip_flags, classifier_of, clips_of
from utils.command_line import INPUT, OutputPath, Parser, run
from utils.outputs import FEATURES

if TYPE_CHECKING:
    from predict.classifier import Classifier

HDF5_SUFFIXES = (".hdf5", ".h5")
SUFFIXES = (".npz", *HDF5_SUFFIXES)
CLIP_FACTS = (*names_with(Role.CLIP_SHAPE), "inference_stride", "inference_clips")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="util_scripts.extract_features", description=__doc__)
    add = parser.add_argument
    add("index", type=INPUT, help="index JSON of the videos")
    add("frames_dir", type=INPUT, help="folder of their frames")
    add("out", type=OutputPath(FEATURES), help="file to write: " + ", ".join(SUFFIXES))
    add("--per", choices=("video", "window"), default="video", help="vectors to write (video)")
    add("--layer", default="", help="name of a module (default: the input of the head)")
    add_classifier_flags(parser)
    add_clip_flags(parser)
    options = parser.parse_args(argv)
    if options.out.suffix not in SUFFIXES:
        raise UserError(f"{options.out}: the file name must end in {' or '.join(SUFFIXES)}")
    if options.out.suffix in HDF5_SUFFIXES:
        require_h5py()
    n_rows, width = _extract(classifier_of(options), options)
    print(f"{options.out}: {n_rows} vectors of {width} numbers, one per {options.per}")
    return 0


def _extract(classifier: "Classifier", options: argparse.Namespace) -> tuple[int, int]:
    """Write the file; return its numbers of rows and columns. Raises UserError."""
    from inference import by_video, over_windows
    from predict.feature_files import write_features
    from predict.features import feature_scorer

    index, loader = clips_of(classifier, options.index, options.frames_dir, options.subset)
    with closing(loader):
        compute = feature_scorer(classifier, options.layer)
        rows = over_windows(compute, loader, device=classifier.device, task="features")
        max_rows = loader.batches.n_windows
        if options.per == "video":
            rows, max_rows = by_video(rows), len(loader.dataset)
        about = json.dumps(_about(classifier, options), allow_nan=False)
        extra = {"label_names": list(index.labels), "about": about}
        count, width = write_features(options.out, rows, loader, max_rows=max_rows, extra=extra)
        if not count:
            raise UserError("no vectors to write: none of the videos could be read")
        if loader.skipped:
            print(f"{len(loader.skipped)} samples could not be read and are not in the file")
    return count, width


def _about(classifier: "Classifier", options: argparse.Namespace) -> dict[str, Any]:
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
    } | {name: plain[name] for name in CLIP_FACTS}


if __name__ == "__main__":
    sys.exit(run(main))
