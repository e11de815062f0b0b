"""The keys of our checkpoints that the original does not have, read and checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

import msgspec

from errors import UserError
from option_checks import check_saved
from utils.reading import LARGEST, LONGEST_NAME, Finite, shown, typed

WRITTEN_BY_US = ("options", "versions")  # every file of ours has at least one of them

Natural = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]


class Best(TypedDict):
    """The best epoch so far."""

    epoch: Natural
    video_accuracy: Share


class SavedPosition(TypedDict):
    """How far into an epoch a run was: the fields of progress.Position."""

    epoch: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    batches: Natural
    loss_sum: Finite
    n_hits: Natural
    n_clips: Natural


class SavedScaler(TypedDict):
    """The state of torch.amp.GradScaler in an fp16 run."""

    scale: Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
    growth_factor: Annotated[float, msgspec.Meta(gt=1, le=LARGEST)]
    backoff_factor: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    growth_interval: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    _growth_tracker: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Extras(msgspec.Struct):
    """Checked values. `options` are the flags of main.py; empty in files of other programs."""

    options: dict[str, Any] = {}
    class_names: list[Name] | None = None
    versions: dict[str, Name] = {}
    best: Best | None = None
    position: SavedPosition | None = None
    scaler: SavedScaler | None = None  # None for precisions without loss scaling
    n_nodes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    training_videos: Name | None = None  # their digest, for engine.run_setup

    @property
    def is_ours(self) -> bool:
        return bool(self.options or self.versions)


def read_extras(content: Mapping[str, Any], place: str) -> Extras:
    """Read the extras of a checkpoint's content.

    Of a file of another program only "class_names" is used, if it is a list of names. Raises
    UserError, which begins with `place`, for values that this program does not write.
    """
    if not any(name in content for name in WRITTEN_BY_US):
        names = content.get("class_names")
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return Extras(class_names=names if is_list else None)
    known = {name: content[name] for name in Extras.__struct_fields__ if name in content}
    if known.get("scaler") == {}:
        del known["scaler"]
    known["options"] = check_saved(known.get("options", {}), place)
    return typed(known, Extras, place)


def check_names(names: Sequence[str], n_outputs: int, place: str) -> None:
    """Raise UserError, which begins with `place`, for more class names than outputs, and for a name
    of two outputs. Outputs may lack names."""
    if len(names) > n_outputs:
        raise UserError(f"{place}: holds {len(names)} class names for {n_outputs} outputs")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{place}: class name {shown(twice)} occurs twice")
