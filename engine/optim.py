"""Optimisers and learning-rate schedules: one table each, built from options or resumed.

To add one, write its builder and its row; the row's name is the value of --optimizer or
--lr_scheduler.
"""

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from engine.checkpoint import Checkpoint
from engine.optimizer_state import load_optimizer
from errors import UserError
from opts import FLAGS, Options
from utils.reading import shown

NAME = "name"  # of a schedule, in its saved state

log = logging.getLogger(__name__)


def _sgd(groups: Any, options: Options) -> Optimizer:
    return torch.optim.SGD(
        groups,
        lr=options.learning_rate,
        momentum=options.momentum,
        dampening=options.dampening,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
        fused=True,
    )


def _multistep(optimizer: Optimizer, options: Options) -> LRScheduler:
    return MultiStepLR(optimizer, options.multistep_milestones)


def _plateau(optimizer: Optimizer, options: Options) -> LRScheduler:
    return ReduceLROnPlateau(optimizer, "min", patience=options.plateau_patience)


class Schedule(NamedTuple):
    """A row of SCHEDULES. `keys` recognise its saved state in files that do not name it."""

    build: Callable[[Optimizer, Options], LRScheduler]
    keys: frozenset[str]


OPTIMIZERS: dict[str, Callable[[Any, Options], Optimizer]] = {"sgd": _sgd}
SCHEDULES: dict[str, Schedule] = {
    "multistep": Schedule(_multistep, frozenset({"milestones", "last_epoch"})),
    "plateau": Schedule(_plateau, frozenset({"patience", "num_bad_epochs"})),
}

# Flags whose values a resumed run takes from the file, with their names in the saved states.
RESUMED = {name: flag.state_name for name, flag in FLAGS.items() if flag.state_name is not None}


@dataclass(frozen=True)
class Optimization:
    """What turns gradients into updates: optimiser, learning-rate schedule, loss scaling."""

    optimizer: Optimizer
    schedule: LRScheduler
    schedule_name: str
    scaler: torch.amp.GradScaler
    clip_grad: float = 0.0  # largest norm of the gradient; 0: no limit

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def end_epoch(self, val_loss: float | None) -> None:
        """Step the schedule; one that follows the validation loss must get it."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            assert val_loss is not None, "options refuse plateau without validation"
            self.schedule.step(val_loss)
        else:
            self.schedule.step()

    def state(self) -> dict[str, Any]:
        """Return the states as a checkpoint holds them: tensors and plain values."""
        schedule = self.schedule.state_dict()
        if "milestones" in schedule:
            schedule["milestones"] = dict(schedule["milestones"])  # a Counter is not plain
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": schedule | {NAME: self.schedule_name},
            "scaler": self.scaler.state_dict(),
        }


def build_optimization(
    options: Options,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    checkpoint: Checkpoint | None = None,
) -> Optimization:
    """Build what trains the model's trainable parameters; resume it from `checkpoint`, if given.

    Fine-tuning gets a parameter group per parameter, as the original's checkpoints have. Raises
    UserError if the saved states do not fit.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grouped = [{"params": [p]} for p in trained.values()]
    groups = grouped if options.ft_begin_module else list(trained.values())
    optimizer = OPTIMIZERS[options.optimizer](groups, options)
    schedule = SCHEDULES[options.lr_scheduler].build(optimizer, options)
    if checkpoint is not None:
        if _resume(checkpoint, optimizer, list(trained)):
            _resume_schedule(checkpoint, schedule, options.lr_scheduler)
            if checkpoint.extras.scaler is not None:
                scaler.load_state_dict(dict(checkpoint.extras.scaler))
        if options.overwrite_milestones and isinstance(schedule, MultiStepLR):
            schedule.milestones = Counter(options.multistep_milestones)
        _warn_of_overruled_flags(options, checkpoint, optimizer, schedule)
    return Optimization(optimizer, schedule, options.lr_scheduler, scaler, options.clip_grad)


def schedule_name(state: Mapping[str, Any] | None) -> str | None:
    """Return the --lr_scheduler that a saved state belongs to; None if it is unknown."""
    if state is None:
        return None
    if NAME in state:
        name = state[NAME]
        return name if isinstance(name, str) and name in SCHEDULES else None
    return next((name for name, row in SCHEDULES.items() if row.keys <= state.keys()), None)


def _resume(checkpoint: Checkpoint, optimizer: Optimizer, names: Sequence[str]) -> bool:
    """Load the optimiser's state; return whether the file has one."""
    if checkpoint.optimizer is None:
        log.warning("%s: has no optimiser state: the optimiser starts afresh", checkpoint.path)
        return False
    place = f"{checkpoint.path}: optimizer"
    try:
        load_optimizer(optimizer, checkpoint.optimizer, names=names, place=place)
    except ValueError as error:
        raise UserError(f"{checkpoint.path}: {error}; resume {_saved_flag(checkpoint)}") from None
    return True


def _saved_flag(checkpoint: Checkpoint) -> str:
    """Name the --ft_begin_module that a file's optimiser belongs to, if the file says so."""
    begin = checkpoint.options.get("ft_begin_module")
    if begin is None:
        return "with the --ft_begin_module it was saved with"
    return f"with --ft_begin_module {begin}" if begin else "without --ft_begin_module"


def _resume_schedule(checkpoint: Checkpoint, schedule: LRScheduler, name: str) -> None:
    saved = schedule_name(checkpoint.scheduler)
    if checkpoint.scheduler is None or saved is None:
        schedule.last_epoch = checkpoint.epoch or 0
        log.warning(
            "%s: has no learning-rate schedule known here: --lr_scheduler %s continues at its "
            "learning rate",
            checkpoint.path,
            name,
        )
        return
    if saved != name:
        raise UserError(
            f"--lr_scheduler {name}: {checkpoint.path} was trained with {saved}; resume with "
            "that, or start anew from its weights with --pretrain_path and --keep_head"
        )
    try:
        load_schedule(schedule, checkpoint.scheduler)
    except ValueError as error:
        raise UserError(f"{checkpoint.path}: {error}") from None
    if not checkpoint.is_ours and not isinstance(schedule, ReduceLROnPlateau):
        # The original saves before the schedule's step of the epoch, this program after it.
        with warnings.catch_warnings():  # torch expects an optimiser step in this process first
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()


def load_schedule(schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the values of a saved state that this schedule has too.

    Raises ValueError for a value of another kind than the schedule's own.
    """
    own = schedule.state_dict()
    known = {key: state[key] for key in own if key in state}
    for key, value in known.items():
        if not _is_alike(value, own[key]):
            raise ValueError(f"the schedule's {key} is {shown(value)}")
    for key in [k for k in known if isinstance(own[k], list) and len(known[k]) != len(own[k])]:
        del known[key]  # a rate per parameter group, saved with another grouping
    if "milestones" in known:
        known["milestones"] = Counter(known["milestones"])
    schedule.load_state_dict(known)


def _is_alike(value: Any, own: Any) -> bool:
    """Return whether a saved value can replace a schedule's own."""
    if value is None or own is None:
        return value is None or isinstance(value, int | float)
    if isinstance(own, dict):
        pairs = value.items() if isinstance(value, dict) else [("", "")]
        return all(isinstance(n, int) and n >= 0 for pair in pairs for n in pair)
    if isinstance(own, list):
        return isinstance(value, list) and all(_is_alike(item, 0.0) for item in value)
    if isinstance(own, bool | str):
        return type(value) is type(own)
    return isinstance(value, int | float) and not math.isnan(value)


def _warn_of_overruled_flags(
    options: Options, checkpoint: Checkpoint, optimizer: Optimizer, schedule: LRScheduler
) -> None:
    """Name the flags whose values the resumed states replace."""
    if checkpoint.optimizer is None:
        return
    state = schedule.state_dict() | optimizer.param_groups[0]
    for name in sorted(RESUMED.keys() & options.given):
        given, used = getattr(options, name), state.get(RESUMED[name])
        if name == "multistep_milestones" and used is not None:
            given, used = tuple(sorted(given)), tuple(sorted(used.elements()))
        if used is not None and used != given:
            hint = "; --overwrite_milestones applies them" if "milestones" in name else ""
            log.warning("--%s %s: the resumed run continues with %s%s", name, given, used, hint)
