"""The frames and the model for the pictures of a report, as in the run that it reports."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datasets.activitynet import narrowed
from datasets.build import build_window_dataset
from datasets.index import canonical_subset
from datasets.video_dataset import VideoDataset
from engine.class_names import check_class_names
from errors import UserError
from flags import Role
from opts import names_with
from parsing import options_of
from predict.classifier import Classifier, load_classifier
from reporting.facts import Facts
from reporting.strips import Viewer

T = TypeVar("T")


@dataclass(frozen=True)
class Overrides:
    """What the command line names; None means what the run used."""

    frames: Path | None = None
    checkpoint: Path | None = None
    layer: str | None = None
    no_cuda: bool = False


def open_inputs(
    facts: Facts, overrides: Overrides, video_ids: Collection[str]
) -> tuple[VideoDataset | None, Viewer | None, str]:
    """Open the windows of some videos and the model; returns also why one of them is missing.

    Raises UserError where something that the command line names cannot be opened; what only the
    run's records name may have been moved.
    """
    reasons: list[str] = []
    classifier = _attempt(
        lambda: _classifier(facts, overrides),
        "No heat maps",
        reasons,
        is_required=overrides.checkpoint is not None,
    )
    dataset = _attempt(
        lambda: _dataset(facts, overrides, classifier, video_ids),
        "No frames",
        reasons,
        is_required=overrides.frames is not None,
    )
    viewer = None if classifier is None else _viewer(classifier, overrides.layer)
    return dataset, viewer, " ".join(reasons)


def _attempt(
    open_it: Callable[[], T], what: str, reasons: list[str], *, is_required: bool
) -> T | None:
    try:
        return open_it()
    except UserError as error:
        if is_required:
            raise
        reasons.append(f"{what}: {error}.")
        return None


def _classifier(facts: Facts, overrides: Overrides) -> Classifier:
    path = overrides.checkpoint or facts.provenance.checkpoint
    if path is None:
        raise UserError("the checkpoint of the run is not known: give it with --checkpoint")
    # Another checkpoint may hold another model, which the run's options do not describe.
    saved = facts.provenance.options if overrides.checkpoint is None else {}
    flags = {name: saved[name] for name in names_with(Role.CLASSIFIER) if name in saved}
    flags |= {"no_cuda": overrides.no_cuda, "precision": "fp32"}
    labels = facts.index.path if facts.index is not None else None
    classifier = load_classifier(path, labels=labels, flags=flags)
    check_class_names(classifier.checkpoint, facts.labels, labels or facts.folder)
    return classifier


def _viewer(classifier: Classifier, layer: str | None) -> Viewer:
    if layer is not None and layer not in dict(classifier.model.named_modules()):
        names = ", ".join(name for name, _ in classifier.model.named_children())
        raise UserError(f"--layer {layer}: no such module; choose {names} or one inside these")
    return Viewer(classifier.model, classifier.device, classifier.options.model, layer)


def _dataset(
    facts: Facts, overrides: Overrides, classifier: Classifier | None, video_ids: Collection[str]
) -> VideoDataset:
    saved = facts.provenance.options
    frames = overrides.frames or saved.get("video_path")
    if frames is None:
        raise UserError("the folder of frames is not known: give it with --frames")
    if facts.index is None:
        raise UserError("the index that lists the videos is missing")
    values = {name: saved[name] for name in names_with(Role.PIXELS) if name in saved}
    if classifier is not None:  # whose clips may differ from the run's
        names = (*names_with(Role.CLIP_SHAPE), "input_type")
        values |= {name: getattr(classifier.options, name) for name in names}
    options = options_of(values | {"video_path": Path(frames).absolute()})
    index = narrowed(facts.index, video_ids)
    return build_window_dataset(options, index, canonical_subset(facts.subset))
