"""Resume optimiser, schedule and loss scaling from a checkpoint; say which flags that overrules."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from engine.checkpoint import Checkpoint
from engine.optim import (
    NAME,
    OPTIMIZERS,
    SCHEDULES,
    Optimization,
    no_order_warning,
    trained_parameters,
)
from engine.optim_state import load_optimizer, load_schedule
from errors import UserError
from opts import FLAGS, Options

# Flags whose values a resumed run takes from the file, with their names in the saved states.
RESUMED = {name: flag.state_name for name, flag in FLAGS.items() if flag.state_name is not None}

log = logging.getLogger(__name__)


def resume_optimization(
    optim: Optimization,
    checkpoint: Checkpoint,
    *,
    options: Options,
    model: nn.Module,
    n_updates: int,
) -> None:
    """Load the states that `checkpoint` has into `optim`, which was built of `options`, `model` and
    `n_updates` per epoch. A schedule without a state starts after the checkpoint's epoch.

    Raises UserError if they do not fit.
    """
    optimizer, schedule = optim.optimizer, optim.schedule
    asked = _values(optimizer, schedule)
    names = list(trained_parameters(model))
    has_optimizer = _resume_optimizer(checkpoint, optimizer, options.optimizer, names)
    if has_optimizer and checkpoint.extras.scaler is not None:
        optim.scaler.load_state_dict(dict(checkpoint.extras.scaler))
    if has_optimizer and _schedule_name(checkpoint.scheduler) is not None:
        _resume_schedule(checkpoint, schedule, optim.schedule_name)
    elif has_optimizer or checkpoint.epoch:
        epoch = checkpoint.epoch or 0
        _set_schedule(optim, epoch, n_updates)
        log.warning(
            "%s: has no optimiser with a schedule known here: --lr_scheduler %s continues after "
            "epoch %d at a learning rate of %g",
            checkpoint.path,
            optim.schedule_name,
            epoch,
            optim.learning_rate,
        )
    if options.overwrite_milestones and isinstance(schedule, MultiStepLR):
        schedule.milestones = Counter(options.multistep_milestones)
    if checkpoint.optimizer is not None:
        _warn_of_overruled_flags(options, asked, _values(optimizer, schedule))


def _resume_optimizer(
    checkpoint: Checkpoint, optimizer: Optimizer, optimizer_name: str, names: Sequence[str]
) -> bool:
    """Load the optimiser's state; return whether the file has one."""
    if checkpoint.optimizer is None:
        log.warning("%s: has no optimiser state: the optimiser starts afresh", checkpoint.path)
        return False
    saved = _optimizer_name(checkpoint) or optimizer_name
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


def _optimizer_name(checkpoint: Checkpoint) -> str | None:
    """Return the --optimizer that a file was trained with, if it says so or its state shows it."""
    if "optimizer" in checkpoint.options:
        return str(checkpoint.options["optimizer"])
    states = checkpoint.optimizer["state"] if checkpoint.optimizer else {}
    states = states.values() if isinstance(states, dict) else ()
    keys = {key for state in states if isinstance(state, dict) for key in state}
    return next((name for name, row in OPTIMIZERS.items() if keys & {*row.buffers}), None)


def _saved_flag(checkpoint: Checkpoint) -> str:
    """Name the --ft_begin_module that a file's optimiser belongs to, if the file says so."""
    begin = checkpoint.options.get("ft_begin_module")
    if begin is None:
        return "with the --ft_begin_module it was saved with"
    return f"with --ft_begin_module {begin}" if begin else "without --ft_begin_module"


def _resume_schedule(checkpoint: Checkpoint, schedule: LRScheduler, name: str) -> None:
    saved = _schedule_name(checkpoint.scheduler)
    assert checkpoint.scheduler is not None
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
        with no_order_warning():  # torch expects an optimiser step in this process first
            schedule.step()


def _set_schedule(optim: Optimization, epoch: int, n_updates: int) -> None:
    """Set a fresh schedule and the rates to where they are after `epoch`.

    One that follows the validation loss keeps the rate: the file does not say what it has seen.
    """
    schedule, groups = optim.schedule, optim.optimizer.param_groups
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.last_epoch = epoch
        return
    schedule.base_lrs = [group["initial_lr"] for group in groups]
    for group in groups:
        group["lr"] = group["initial_lr"]
    n_steps = epoch
    if SCHEDULES[optim.schedule_name].per_update:  # computes any rate at once
        schedule.last_epoch, n_steps = epoch * n_updates - 1, 1
    with no_order_warning():
        for _ in range(n_steps):
            schedule.step()


def _schedule_name(state: Mapping[str, Any] | None) -> str | None:
    """Return the --lr_scheduler that a saved state belongs to; None if it is unknown."""
    if state is None:
        return None
    if NAME in state:
        name = state[NAME]
        return name if isinstance(name, str) and name in SCHEDULES else None
    return next((name for name, row in SCHEDULES.items() if row.keys <= state.keys()), None)


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
