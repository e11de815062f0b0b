"""Resume optimiser, schedule and loss scaling from a checkpoint; say which flags that overrules."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

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
    `n_updates` per epoch. A schedule without a state continues after the checkpoint's epoch.

    Raises UserError if they do not fit.
    """
    optimizer, schedule = optim.optimizer, optim.schedule
    asked = _values(optimizer, schedule)
    names = list(trained_parameters(model))
    if checkpoint.optimizer is not None:
        _resume_optimizer(checkpoint, optimizer, options, names)
        if checkpoint.extras.scaler is not None:
            optim.scaler.load_state_dict(dict(checkpoint.extras.scaler))
    if checkpoint.optimizer is not None and _schedule_name(checkpoint.scheduler) is not None:
        _resume_schedule(checkpoint, schedule, optim.schedule_name)
    else:
        _set_schedule(checkpoint, optim, n_updates)
    if options.overwrite_milestones and isinstance(schedule, MultiStepLR):
        schedule.milestones = Counter(options.multistep_milestones)
    if checkpoint.optimizer is not None:
        _warn_of_overruled_flags(options, asked, _values(optimizer, schedule))


def _resume_optimizer(
    checkpoint: Checkpoint, optimizer: Optimizer, options: Options, names: Sequence[str]
) -> None:
    assert checkpoint.optimizer is not None
    saved = _optimizer_name(checkpoint) or options.optimizer
    if saved != options.optimizer:
        raise UserError(
            f"--optimizer {options.optimizer}: {checkpoint.path} was trained with {saved}; resume "
            "with that, or start anew from its weights with --pretrain_path and --keep_head"
        )
    row = OPTIMIZERS[options.optimizer]
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
    rate = checkpoint.options.get("learning_rate")
    if rate is not None and options.learning_rate and not _has_initial_rates(checkpoint):
        for group in optimizer.param_groups:  # a run of version 0.1 with plateau
            group["initial_lr"] *= rate / options.learning_rate


def _has_initial_rates(checkpoint: Checkpoint) -> bool:
    groups = checkpoint.optimizer["param_groups"] if checkpoint.optimizer else []
    return all("initial_lr" in group for group in groups)


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


def _set_schedule(checkpoint: Checkpoint, optim: Optimization, n_updates: int) -> None:
    """Set a fresh schedule to where it is after the checkpoint's epoch, and log the rate.

    The rates of a saved optimiser stay, since it is unknown what has lowered them; without one they
    are computed, where they do not depend on the validation loss.
    """
    schedule, epoch = optim.schedule, checkpoint.epoch or 0
    has_optimizer = checkpoint.optimizer is not None
    with no_order_warning():
        if isinstance(schedule, LambdaLR):
            if has_optimizer:
                schedule.base_lrs = _starting_rates(checkpoint, optim, epoch * n_updates)
            schedule.last_epoch = epoch * n_updates - 1
            schedule.step()
        elif has_optimizer or isinstance(schedule, ReduceLROnPlateau):
            schedule.last_epoch = epoch
        else:
            for _ in range(epoch):
                schedule.step()
    log.warning(
        "%s: has no %s --lr_scheduler %s continues after epoch %d at a learning rate of %g",
        checkpoint.path,
        "learning-rate schedule known here:"
        if has_optimizer
        else "optimiser state: the optimiser starts afresh, and",
        optim.schedule_name,
        epoch,
        optim.learning_rate,
    )


def _starting_rates(checkpoint: Checkpoint, optim: Optimization, n_done: int) -> list[Any]:
    """Return each group's rate before the first update of a schedule that counts them: the saved
    one if nothing has lowered it, else the one that leads to it after `n_done` updates."""
    assert isinstance(optim.schedule, LambdaLR)
    share = optim.schedule.lr_lambdas[0](n_done)
    is_known = _has_initial_rates(checkpoint)
    return [
        group["lr"] / share if is_known and group["lr"] != group["initial_lr"] else group["lr"]
        for group in optim.optimizer.param_groups
    ]


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
