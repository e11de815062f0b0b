"""`fit`: all epochs of a run, each trained, validated, logged and saved; early stopping."""

import logging
from collections.abc import Callable
from functools import partial

from datasets.video_dataset import TrainLoader, ValLoader
from engine.checkpoint_manager import CheckpointManager
from engine.epoch_log import log_batch, log_epoch, log_times, warn_of_divergence, warn_of_skipped
from engine.progress import Position, Stopwatch, TimeLeft
from engine.run_log import RunLog
from training import Trainer, train_one_epoch
from validation import Evaluation, validate

log = logging.getLogger(__name__)


def fit(
    trainer: Trainer,
    train_loader: TrainLoader,
    val_loader: ValLoader | None,
    *,
    start: Position,
    n_epochs: int,
    run_log: RunLog,
    checkpoints: CheckpointManager,
    after_batch: Callable[[], None] | None = None,
) -> int:
    """Train from `start` to the end of epoch `n_epochs`; validate, log and save each epoch.

    Returns the last epoch, which early stopping may have brought forward.
    Raises Interrupted between two updates after a signal, with everything saved.
    """
    if start.batches == 0 and _is_finished(trainer, start.epoch - 1):
        return start.epoch - 1
    time_left = TimeLeft(start.epoch, n_epochs)
    for epoch in range(start.epoch, n_epochs + 1):
        stopwatch = Stopwatch()
        epoch_start = start if epoch == start.epoch else Position(epoch)
        position = train_one_epoch(
            trainer,
            train_loader,
            position=epoch_start,
            title=f"epoch {epoch} of {n_epochs}{time_left}",
            stopwatch=stopwatch,
            after_batch=after_batch,
            on_metrics=partial(log_batch, run_log, len(train_loader)),
            checkpoints=checkpoints,
        )
        stopwatch.stop()
        trainer.share_statistics()
        # At its end: of a schedule that counts updates, a resumed run does not know another.
        rate = trainer.optim.learning_rate
        log_epoch(position, f"of {n_epochs}", rate, run_log, f"{stopwatch}{time_left}")
        warn_of_divergence(position, trainer.n_classes, rate)
        warn_of_skipped(train_loader.skipped, f"epoch {epoch}")
        validation_stopwatch = Stopwatch()
        evaluation = None
        if val_loader is not None:
            evaluation = _validate(trainer, val_loader, position, run_log, checkpoints)
        validation_stopwatch.stop()
        n_clips = position.n_clips - epoch_start.n_clips
        log_times(run_log, epoch, stopwatch, validation_stopwatch, n_clips)
        trainer.optim.end_epoch(None if evaluation is None else evaluation.loss)
        is_best = _note_best(trainer, epoch, evaluation)
        time_left.end_epoch(epoch)
        is_last_epoch = epoch == n_epochs or _is_finished(trainer, epoch)
        checkpoints.save_at_end_of_epoch(
            trainer.state, epoch, is_last=is_last_epoch, is_best=is_best
        )
        if is_last_epoch:
            return epoch
    return start.epoch - 1  # all epochs were trained before


def _validate(
    trainer: Trainer,
    loader: ValLoader,
    position: Position,
    run_log: RunLog,
    checkpoints: CheckpointManager,
) -> Evaluation:
    """Validate after an epoch of training; a single process may save meanwhile."""
    save_if_due = partial(checkpoints.save_inside_epoch, trainer.state, position._asdict())
    return validate(
        trainer.network.make_scorer(trainer.scored_model),
        loader,
        trainer.device,
        position.epoch,
        run_log,
        world=trainer.world,
        # Several processes can only save together, and here their batches differ.
        before_batch=save_if_due if trainer.world.size == 1 else None,
    )


def _is_finished(trainer: Trainer, epoch: int) -> bool:
    """Return whether the best epoch is so far back that early stopping ends training."""
    if not trainer.early_stopping or trainer.best is None:
        return False
    best = trainer.best["epoch"]
    if epoch - best < trainer.early_stopping:
        return False
    log.info("early stopping after epoch %d: no better epoch since %d", epoch, best)
    return True


def _note_best(trainer: Trainer, epoch: int, evaluation: Evaluation | None) -> bool:
    """Remember the epoch if its video accuracy is the best so far; return whether it is."""
    if evaluation is None:
        return False
    accuracy = evaluation.video_accuracy
    if trainer.best is not None and accuracy <= trainer.best["video_accuracy"]:
        return False
    trainer.best = {"epoch": epoch, "video_accuracy": accuracy}
    return True
