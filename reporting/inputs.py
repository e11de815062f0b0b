"""The frames and the model that a report looks at, found by what made the result."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datasets.activitynet import narrowed
from datasets.build import build_window_dataset
from datasets.index import canonical_subset
from datasets.video_dataset import VideoDataset
from engine.checkpoint import check_class_names
from errors import UserError
from opts import CLASSIFIER_FLAGS, options_of
from predict.classifier import Classifier, load_classifier
from reporting.facts import Facts
from reporting.strips import Viewer

# What decides which pixels the model sees.
CLIP_FLAGS = ("sample_size", "sample_duration", "sample_t_stride", "input_type")
FRAME_FLAGS = ("file_type", "accimage", "inference_stride", "inference_crop")

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """What was asked for on the command line; None is what the run used."""

    frames: Path | None = None
    checkpoint: Path | None = None
    layer: str | None = None
    no_cuda: bool = False


def open_material(
    facts: Facts, places: Places, video_ids: Collection[str]
) -> tuple[VideoDataset | None, Viewer | None, str]:
    """The windows of some videos, a model to look with, and why one of them is missing.

    What was asked for must be there (UserError); what only the run told may be gone.
    """
    reasons: list[str] = []
    known = _attempt(
        lambda: _classifier(facts, places), "No heat", reasons, places.checkpoint is not None
    )
    dataset = _attempt(
        lambda: _dataset(facts, places, known, video_ids),
        "No frames",
        reasons,
        places.frames is not None,
    )
    viewer = None if known is None else _viewer(known, places.layer)
    return dataset, viewer, " ".join(reasons)


def _attempt(open_it: Callable[[], T], what: str, reasons: list[str], asked_for: bool) -> T | None:
    try:
        return open_it()
    except UserError as error:
        if asked_for:
            raise
        reasons.append(f"{what}: {error}.")
        return None


def _classifier(facts: Facts, places: Places) -> Classifier:
    path = places.checkpoint or facts.provenance.checkpoint
    if path is None:
        raise UserError("nothing tells which checkpoint the run used: give it with --checkpoint")
    # Another checkpoint may be of another model than the run's.
    told = facts.provenance.options if places.checkpoint is None else {}
    flags = {name: told[name] for name in CLASSIFIER_FLAGS if name in told}
    flags |= {"no_cuda": places.no_cuda, "precision": "fp32"}
    labels = facts.index.path if facts.index is not None else None
    found = load_classifier(path, labels=labels, flags=flags)
    check_class_names(found.checkpoint, facts.labels, labels or facts.folder)
    return found


def _viewer(known: Classifier, layer: str | None) -> Viewer:
    if layer is not None and layer not in dict(known.model.named_modules()):
        names = ", ".join(name for name, _ in known.model.named_children())
        raise UserError(f"--layer {layer}: no such module; there are {names} and those inside")
    return Viewer(known.model, known.device, known.options.model, layer)


def _dataset(
    facts: Facts, places: Places, known: Classifier | None, video_ids: Collection[str]
) -> VideoDataset:
    told = facts.provenance.options
    frames = places.frames or told.get("video_path")
    if frames is None:
        raise UserError("nothing tells where the frames lie: give their folder with --frames")
    if facts.index is None:
        raise UserError("they are found by the index, which is missing")
    values = {name: told[name] for name in (*CLIP_FLAGS, *FRAME_FLAGS) if name in told}
    if known is not None:
        values |= {name: getattr(known.options, name) for name in CLIP_FLAGS}
    options = options_of(values | {"video_path": Path(frames).absolute()})
    index = narrowed(facts.index, video_ids)
    return build_window_dataset(options, index, canonical_subset(facts.subset))
