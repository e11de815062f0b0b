"""What our checkpoints hold beside the original's keys, read into types."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import msgspec

from opts import check_saved
from utils.reading import LARGEST, LONGEST_NAME, Finite, typed

WRITTEN_BY_US = ("options", "versions")  # at least one of them is in every file that we wrote

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
    """The loss scaling of an fp16 run, as torch.amp.GradScaler has it."""

    scale: Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
    growth_factor: Annotated[float, msgspec.Meta(gt=1, le=LARGEST)]
    backoff_factor: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    growth_interval: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    _growth_tracker: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Extras(msgspec.Struct):
    """Checked values; `options` are those of this program's flags, and none in files of other
    programs."""

    options: dict[str, Any] = {}
    class_names: list[Name] | None = None
    versions: dict[str, Name] = {}
    best: Best | None = None
    position: SavedPosition | None = None
    scaler: SavedScaler | None = None  # None where the precision needed no scaling
    n_nodes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    training_videos: Name | None = None  # their digest, see engine.resume_check

    @property
    def is_ours(self) -> bool:
        return bool(self.options or self.versions)


def read_extras(content: Mapping[str, Any], place: str) -> Extras:
    """The extras of a checkpoint's content. Raises UserError, which begins with `place`, for values
    that we never wrote.

    Of a file of another program only "class_names" counts, and only if it is a list of names.
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
