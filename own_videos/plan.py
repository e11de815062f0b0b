"""Choose network, clips, batch and epochs for the videos and the time there is: numbers in, a plan
out."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Small enough to train from nothing on a laptop; see recipes/scratch_small.txt.
SMALL_NETWORK = ("--model_depth", "10", "--resnet_widen_factor", "0.5", "--sample_size", "64")
TORCHVISION = ("torchvision:", "r3d_18-", "mc3_18-", "r2plus1d_18-")  # trained at 15 per second
FROM_SCRATCH, FINE_TUNING, HEAD = "scratch_small", "finetune", "head"
CLIP_FRAMES = 16
CLIP_SECONDS = 1.0  # that a clip should cover: most actions show in it
MOST_EPOCHS, FEWER_EPOCHS = 100, 30  # from scratch, with few and with many videos
CLIPS_TO_SEE = 80_000  # in training from scratch, between these numbers of epochs
FINE_TUNING_EPOCHS, HEAD_EPOCHS = 30, 50
ENOUGH_EPOCHS = 8  # of fine-tuning; if the time allows fewer, only the head is trained
LEAST_EPOCHS = 3
HANDFUL = 16  # training videos
CACHED_VIEWS = 4  # of each video, for training the head
LISTS = ("flags", "notes", "warnings")  # of a plan
NETWORK = frozenset(["model", "model_depth", "resnet_widen_factor"])  # flags that belong together
DECIDED = frozenset(["recipe", "pretrain_path", "n_epochs", "n_val_samples"])  # by the plan
USED = 0.9  # of the time: the estimate may be too low
VAL_FRACTION, FEW_VIDEOS = 0.2, 500
VAL_FRACTION_OF_FEW = 0.3


class Data(NamedTuple):
    """What the plan depends on. `n_windows` are the windows of all validation videos."""

    n_train: int
    n_val: int
    is_split: bool
    n_windows: int
    median_frames: float
    rate: float  # frames per second
    seconds: float  # of video to extract


class Speed(NamedTuple):
    """Seconds on this machine."""

    extraction: float  # per second of video
    train_clip: float
    val_clip: float
    per_run: float  # start, checks and report of one run of main.py


@dataclass(frozen=True)
class Plan:
    """How to train. `flags` are main.py's; `seconds` are the estimated duration of each step of all
    folds; `notes` are sentences for the user, `warnings` those that are said at the end again."""

    recipe: str
    weights: str | None
    flags: tuple[str, ...]
    n_epochs: int
    n_train: int  # of the first fold
    n_val: int
    val_fraction: float
    n_folds: int  # 0: a single split
    is_split: bool  # by the user
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    def as_plain(self) -> dict[str, Any]:
        return {**vars(self), **{name: list(getattr(self, name)) for name in LISTS}}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Plan":
        return cls(**{**plain, **{name: tuple(plain[name]) for name in LISTS}})


def val_fraction_for(n_videos: int) -> float:
    """Return the share of validation videos: more of few, whose accuracy is more uncertain."""
    return VAL_FRACTION_OF_FEW if n_videos < FEW_VIDEOS else VAL_FRACTION


def clip_flags(*, median_frames: float, rate: float, weights: str | None = None) -> tuple[str, ...]:
    """Choose a temporal stride with which 16 frames cover about a second, if the videos are that
    long. Weights were trained at a rate of their own: torchvision's at such a one, others on every
    frame."""
    if weights is not None and not Path(weights).name.startswith(TORCHVISION):
        return ()
    by_time = round(rate * CLIP_SECONDS / CLIP_FRAMES)
    stride = max(1, min(by_time, int(median_frames // CLIP_FRAMES)))
    return ("--sample_t_stride", str(stride)) if stride > 1 else ()


def batch_flags(n_train: int) -> tuple[str, ...]:
    """Choose smaller batches than the recipe's for a handful of videos, so that an epoch has
    several updates."""
    return ("--batch_size", "4") if n_train < HANDFUL else ()


def network_flags(weights: str | None) -> tuple[str, ...]:
    """Choose the network: that of the weights, or a small one."""
    return SMALL_NETWORK if weights is None else ("--pretrain_path", weights)


def without_flags(flags: Sequence[str], names: Collection[str]) -> tuple[str, ...]:
    """Leave out flags with one value each that a recipe of the user's sets, except those that it
    can't decide; if it sets one of the network's, all of them."""
    names = {*names, *(NETWORK if NETWORK & set(names) else ())} - DECIDED
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return tuple(word for pair in pairs if pair[0].removeprefix("--") not in names for word in pair)


def choose(
    data: Data,
    speed: Speed,
    *,
    minutes: float,
    n_folds: int,
    weights: str | None,
    recipe: str | None,
) -> Plan:
    """Choose recipe and epochs so that the whole run takes at most `minutes`, if it can.

    `recipe` is the user's choice, or None.
    """
    n_runs = max(1, n_folds)
    val_fraction = val_fraction_for(data.n_train + data.n_val)
    fixed = {
        "extracting frames": data.seconds * speed.extraction,
        "starting, testing and report": n_runs * (speed.per_run + data.n_windows * speed.val_clip),
    }
    left = (minutes * 60 * USED - sum(fixed.values())) / n_runs
    per_epoch = data.n_train * speed.train_clip + data.n_val * speed.val_clip
    affordable = int(max(left, 0) / per_epoch)
    if recipe is None:
        recipe = FROM_SCRATCH if weights is None else FINE_TUNING
        if weights is not None and affordable < ENOUGH_EPOCHS:
            recipe = HEAD
    is_head = recipe == HEAD and weights is not None
    if is_head:
        n_epochs, training = HEAD_EPOCHS, _seconds_of_head(data, speed)
        recipe_flags: tuple[str, ...] = ("--cache_features", str(CACHED_VIEWS))
    else:
        n_epochs = max(LEAST_EPOCHS, min(_wanted_epochs(data.n_train, weights), affordable))
        training, recipe_flags = n_epochs * per_epoch, ()
    seconds = fixed | {"training": n_runs * training}
    flags = (
        *("--recipe", recipe),
        *network_flags(weights),
        *clip_flags(median_frames=data.median_frames, rate=data.rate, weights=weights),
        *(() if is_head else batch_flags(data.n_train)),
        *recipe_flags,
        *("--n_epochs", str(n_epochs), "--n_val_samples", "1"),
    )
    notes = _notes(sum(seconds.values()), minutes, n_epochs, is_head=is_head, weights=weights)
    return Plan(
        recipe,
        weights,
        flags,
        n_epochs,
        data.n_train,
        data.n_val,
        val_fraction,
        n_folds,
        data.is_split,
        seconds,
        notes,
    )


def _wanted_epochs(n_train: int, weights: str | None) -> int:
    if weights is not None:
        return FINE_TUNING_EPOCHS
    return max(FEWER_EPOCHS, min(MOST_EPOCHS, math.ceil(CLIPS_TO_SEE / max(1, n_train))))


def _seconds_of_head(data: Data, speed: Speed) -> float:
    """Estimate training the head: the frozen network sees every video a few times in all."""
    return (CACHED_VIEWS * data.n_train + data.n_val) * speed.val_clip


def _notes(
    seconds: float, minutes: float, n_epochs: int, *, is_head: bool, weights: str | None
) -> tuple[str, ...]:
    notes = []
    if seconds > 60 * minutes:
        notes.append(
            f"--minutes {minutes:g} is not enough for these videos on this machine; the plan takes "
            "the least that makes sense"
        )
    elif not is_head and n_epochs < FEWER_EPOCHS and weights is None:
        notes.append(
            f"there is time for {n_epochs} epochs; more --minutes may give a better accuracy"
        )
    return tuple(notes)
