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
    optim: Optimization, checkpoint: Checkpoint, *, options: Options, model: nn.Module
) -> None:
    """Load the states that `checkpoint` has into `optim`, which was built of `options` and `model`.

    Raises UserError if they do not fit.
    """
    optimizer, schedule = optim.optimizer, optim.schedule
    asked = _values(optimizer, schedule)
    if _resume_optimizer(checkpoint, optimizer, options.optimizer, list(trained_parameters(model))):
        _resume_schedule(checkpoint, schedule, optim.schedule_name)
        if checkpoint.extras.scaler is not None:
            optim.scaler.load_state_dict(dict(checkpoint.extras.scaler))
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
    saved = _schedule_name(checkpoint.scheduler)
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
        with no_order_warning():  # torch expects an optimiser step in this process first
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
