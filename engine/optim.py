"""Optimisers and learning-rate schedules: one table each, and what builds them.

To add one, write its builder and its row; the row's name is the value of --optimizer or
--lr_scheduler.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from models.catalog import FAMILIES
from opts import Options

NAME = "name"  # of a schedule, in its saved state


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
            with no_order_warning():  # an fp16 overflow may have skipped the first update
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
    options: Options, model: nn.Module, scaler: torch.amp.GradScaler, *, n_updates: int
) -> Optimization:
    """Build what trains the model's trainable parameters. `n_updates` is their number per epoch."""
    groups = _parameter_groups(options, trained_parameters(model))
    optimizer = OPTIMIZERS[options.optimizer].build(groups, options)
    for group in optimizer.param_groups:  # as most schedules do; ReduceLROnPlateau does not
        group.setdefault("initial_lr", group["lr"])
    schedule = SCHEDULES[options.lr_scheduler].build(optimizer, options, n_updates)
    return Optimization(optimizer, schedule, options.lr_scheduler, scaler, options.clip_grad)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that the optimiser trains, by name, in its order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


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
def no_order_warning() -> Iterator[None]:
    """Silence torch's warning about schedules that are stepped before the optimiser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
