"""Optimisers and learning-rate schedules: one table each, built from options or resumed.

To add one, write its builder and its row; the row's name is the value of --optimizer or
--lr_scheduler.
"""

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
)

from engine.checkpoint import Checkpoint
from engine.optimizer_state import load_optimizer
from errors import UserError
from models.catalog import FAMILIES
from opts import FLAGS, Options
from utils.reading import shown

NAME = "name"  # of a schedule, in its saved state

log = logging.getLogger(__name__)


class OptimizerRow(NamedTuple):
    """A row of OPTIMIZERS. `buffers` is what it keeps per parameter: tensors of the parameter's
    shape, and `counters`: single numbers."""

    build: Callable[[Any, Options], Optimizer]
    buffers: tuple[str, ...]
    counters: tuple[str, ...] = ()


class ScheduleRow(NamedTuple):
    """A row of SCHEDULES. `build` gets the number of updates per epoch, too.

    `keys` recognise its saved state in files that do not name it. `per_update`: it is stepped after
    every update, else after every epoch.
    """

    build: Callable[[Optimizer, Options, int], LRScheduler]
    keys: frozenset[str]
    per_update: bool = False


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


def _adamw(groups: Any, options: Options) -> Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)


def _multistep(optimizer: Optimizer, options: Options, n_updates: int) -> LRScheduler:
    return MultiStepLR(optimizer, options.multistep_milestones)


def _plateau(optimizer: Optimizer, options: Options, n_updates: int) -> LRScheduler:
    return ReduceLROnPlateau(optimizer, "min", patience=options.plateau_patience)


def _cosine(optimizer: Optimizer, options: Options, n_updates: int) -> LRScheduler:
    n_warmup = round(options.warmup_epochs * n_updates)
    return LambdaLR(optimizer, WarmupCosine(n_warmup, options.n_epochs * n_updates))


class WarmupCosine:
    """The learning rate of update `number`, from 0, as a multiple of the initial one.

    It rises linearly over `n_warmup` updates, then falls along half a cosine to 0 at `n_updates`
    (Loshchilov and Hutter, arXiv:1608.03983, without restarts). One formula instead of a chain of
    schedules, so that a resumed run computes the same rates to the bit.
    """

    def __init__(self, n_warmup: int, n_updates: int) -> None:
        self.n_warmup, self.n_updates = n_warmup, n_updates

    def __call__(self, number: int) -> float:
        if number < self.n_warmup:
            return (number + 1) / self.n_warmup
        share = (number - self.n_warmup) / max(1, self.n_updates - self.n_warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


OPTIMIZERS: dict[str, OptimizerRow] = {
    "sgd": OptimizerRow(_sgd, ("momentum_buffer",)),
    "adamw": OptimizerRow(_adamw, ("exp_avg", "exp_avg_sq"), ("step",)),
}
SCHEDULES: dict[str, ScheduleRow] = {
    "multistep": ScheduleRow(_multistep, frozenset({"milestones", "last_epoch"})),
    "plateau": ScheduleRow(_plateau, frozenset({"patience", "num_bad_epochs"})),
    "cosine": ScheduleRow(_cosine, frozenset({"lr_lambdas", "last_epoch"}), per_update=True),
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
        """The largest of all parameter groups: that of the head, if they differ."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def end_update(self) -> None:
        """Step a schedule that counts updates."""
        if SCHEDULES[self.schedule_name].per_update:
            with _no_order_warning():  # an fp16 overflow may have skipped the first update
                self.schedule.step()

    def end_epoch(self, val_loss: float | None) -> None:
        """Step a schedule that counts epochs; one that follows the validation loss must get it."""
        if SCHEDULES[self.schedule_name].per_update:
            return
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
    *,
    n_updates: int,
    checkpoint: Checkpoint | None = None,
) -> Optimization:
    """Build what trains the model's trainable parameters; resume it from `checkpoint`, if given.

    `n_updates` is their number per epoch. Raises UserError if the saved states do not fit.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    row = OPTIMIZERS[options.optimizer]
    optimizer = row.build(_parameter_groups(options, trained), options)
    schedule = SCHEDULES[options.lr_scheduler].build(optimizer, options, n_updates)
    if checkpoint is not None:
        asked = _values(optimizer, schedule)
        if _resume(checkpoint, optimizer, options.optimizer, list(trained)):
            _resume_schedule(checkpoint, schedule, options.lr_scheduler)
            if checkpoint.extras.scaler is not None:
                scaler.load_state_dict(dict(checkpoint.extras.scaler))
        if options.overwrite_milestones and isinstance(schedule, MultiStepLR):
            schedule.milestones = Counter(options.multistep_milestones)
        if checkpoint.optimizer is not None:
            _warn_of_overruled_flags(options, asked, _values(optimizer, schedule))
    return Optimization(optimizer, schedule, options.lr_scheduler, scaler, options.clip_grad)


def _parameter_groups(options: Options, trained: Mapping[str, nn.Parameter]) -> list[Any]:
    """Return the parameters or, if their rates or weight decay differ, a group for each.

    Fine-tuning gets a group for each in any case, as the original's checkpoints have.
    """
    is_uniform = options.head_lr_factor == options.layer_decay == 1 and not options.no_norm_decay
    if is_uniform:
        if options.ft_begin_module:
            return [{"params": [parameter]} for parameter in trained.values()]
        return list(trained.values())
    factors = _learning_rate_factors(options)
    family = FAMILIES[options.model]
    return [
        {
            "params": [parameter],
            "lr": options.learning_rate * factors[family.module_of(name)],
            # Batch norm and biases are the parameters of one dimension.
            "weight_decay": options.weight_decay
            * (not options.no_norm_decay or parameter.ndim > 1),
        }
        for name, parameter in trained.items()
    ]


def _learning_rate_factors(options: Options) -> dict[str, float]:
    """Return {module: factor of the learning rate}: each stage has `layer_decay` times the rate of
    the one after it; the stem counts as a stage."""
    family = FAMILIES[options.model]
    levels = {}
    level = 0
    for module in family.modules:
        level += module in family.stages or module == family.head
        levels[module] = level
    factors = {module: options.layer_decay ** (level - own) for module, own in levels.items()}
    return factors | {family.head: options.head_lr_factor}


@contextmanager
def _no_order_warning() -> Iterator[None]:
    """Silence torch's warning about schedules that are stepped before the optimiser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def schedule_name(state: Mapping[str, Any] | None) -> str | None:
    """Return the --lr_scheduler that a saved state belongs to; None if it is unknown."""
    if state is None:
        return None
    if NAME in state:
        name = state[NAME]
        return name if isinstance(name, str) and name in SCHEDULES else None
    return next((name for name, row in SCHEDULES.items() if row.keys <= state.keys()), None)


def _resume(
    checkpoint: Checkpoint, optimizer: Optimizer, optimizer_name: str, names: Sequence[str]
) -> bool:
    """Load the optimiser's state; return whether the file has one."""
    if checkpoint.optimizer is None:
        log.warning("%s: has no optimiser state: the optimiser starts afresh", checkpoint.path)
        return False
    saved = checkpoint.options.get("optimizer", "sgd")
    if saved != optimizer_name:
        raise UserError(
            f"--optimizer {optimizer_name}: {checkpoint.path} was trained with {saved}; resume "
            "with that, or start anew from its weights with --pretrain_path and --keep_head"
        )
    row = OPTIMIZERS[optimizer_name]
    try:
        load_optimizer(
            optimizer,
            checkpoint.optimizer,
            buffers=row.buffers,
            counters=row.counters,
            names=names,
            place=f"{checkpoint.path}: optimizer",
        )
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
            f"--lr_scheduler {name}: {checkpoint.path} was trained with {saved}; resume "
            "with that, or start anew from its weights with --pretrain_path and --keep_head"
        )
    try:
        load_schedule(schedule, checkpoint.scheduler)
    except ValueError as error:
        raise UserError(f"{checkpoint.path}: {error}") from None
    if not checkpoint.is_ours and not isinstance(schedule, ReduceLROnPlateau):
        # The original saves before the schedule's step of the epoch, this program after it.
        with _no_order_warning():  # torch expects an optimiser step in this process first
            schedule.step()


def load_schedule(schedule: LRScheduler, state: Mapping[str, Any]) -> None:
    """Load the values of a saved state that this schedule has too.

    Raises ValueError for a value of another kind than the schedule's own.
    """
    own = schedule.state_dict()
    if "lr_lambdas" in own and state.get("lr_lambdas") != own["lr_lambdas"]:
        raise ValueError(_lambda_fault(own["lr_lambdas"], state.get("lr_lambdas")))
    known = {key: state[key] for key in own if key in state}
    for key, value in known.items():
        if key != "lr_lambdas" and not _is_alike(value, own[key]):
            raise ValueError(f"the schedule's {key} is {shown(value)}")
    for key in [k for k in known if isinstance(own[k], list) and len(known[k]) != len(own[k])]:
        del known[key]  # a rate per parameter group, saved with another grouping
    if "milestones" in known:
        known["milestones"] = Counter(known["milestones"])
    schedule.load_state_dict(known)


def _lambda_fault(own: Sequence[Any], saved: Any) -> str:
    """Say why the saved curves, one per parameter group, are not the schedule's own."""
    if isinstance(saved, list) and saved and all(curve == own[0] for curve in saved):
        return (
            "its optimiser has other groups of parameters: resume with the --ft_begin_module, "
            "--head_lr_factor, --layer_decay and --no_norm_decay that it was trained with"
        )
    return (
        "its learning-rate schedule has another number of updates: resume with the training "
        "videos, --n_epochs, --warmup_epochs, --batch_size, --accumulate and number of machines "
        "that it was trained with"
    )


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


def _values(optimizer: Optimizer, schedule: LRScheduler) -> list[dict[str, Any]]:
    """Return what flags can set, for each parameter group."""
    return [{**schedule.state_dict(), **group} for group in optimizer.param_groups]


def _warn_of_overruled_flags(
    options: Options, asked: Sequence[Mapping[str, Any]], used: Sequence[Mapping[str, Any]]
) -> None:
    """Name the flags whose values the resumed states replace, by the first group that differs."""
    for name in sorted(RESUMED.keys() & options.given):
        key = RESUMED[name]
        pairs = ((a.get(key), u.get(key)) for a, u in zip(asked, used, strict=True))
        differing = next(((a, u) for a, u in pairs if u is not None and u != a), None)
        if differing is None:
            continue
        given, value = differing
        if name == "multistep_milestones":
            given, value = (tuple(sorted(Counter(v).elements())) for v in differing)
        elif name == "learning_rate" and given:  # the group's, which may be a multiple
            given, value = options.learning_rate, f"{value / given * options.learning_rate:g}"
        hint = "; --overwrite_milestones applies them" if "milestones" in name else ""
        log.warning("--%s %s: the resumed run continues with %s%s", name, given, value, hint)
