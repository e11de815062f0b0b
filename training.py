"""The epoch loop: train, validate, step the schedule, save."""

import logging
import math
from collections.abc import Callable
from functools import partial

from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from datasets.video_dataset import TrainLoader, ValLoader
from engine.checkpoint_manager import CheckpointKeeper
from engine.device import Device, Scorer
from engine.distributed import ALONE, World
from engine.progress import Late, Position, Step, Stopwatch
from engine.run_log import RunLog
from errors import UserError
from evaluation.metrics import confusion_matrix
from trainer import Scheduler, Trainer
from utils.progress_bar import Bar, duration
from validation import Evaluation, evaluate

log = logging.getLogger(__name__)


def fit(
    trainer: Trainer,
    train_loader: TrainLoader,
    val_loader: ValLoader | None,
    *,
    start: Position,
    n_epochs: int,
    n_classes: int,
    run_log: RunLog,
    keeper: CheckpointKeeper,
    accumulate: int = 1,
    scorer: Callable[[nn.Module], Scorer] | None = None,
    on_batch: Callable[[], None] | None = None,
) -> None:
    """Train from `start` to the end of epoch `n_epochs`; validate, log and save each epoch.

    Raises Interrupted between two batches after a signal, with all that is done saved.
    """
    run, left = Stopwatch(), None
    for epoch in range(start.epoch, n_epochs + 1):
        rate, watch = trainer.learning_rate(), Stopwatch()
        begin = start if epoch == start.epoch else Position(epoch)
        position = train_one_epoch(
            trainer,
            train_loader,
            position=begin,
            accumulate=accumulate,
            on_step=lambda step: _log_step(step, trainer.learning_rate(), run_log),
            on_batch=on_batch,
            pauses=keeper,
            watch=watch,
            title=f"epoch {epoch} of {n_epochs}" + _in_words(left),
        )
        if left is not None:
            left = max(0.0, left - watch.seconds)
        _log_epoch(position, n_epochs, rate, run_log, f"{watch}{_in_words(left)}")
        _warn_of_divergence(position, n_classes, rate)
        seconds = {"train": watch.seconds, "waiting": watch.waited}
        seconds["clips_per_second"] = (position.n_clips - begin.n_clips) / watch.seconds
        evaluation, watch = None, Stopwatch()
        if val_loader is not None:
            pause = partial(keeper.inside_epoch, trainer.state, position._asdict())
            evaluation = validate(
                trainer.model,
                val_loader,
                trainer.device,
                epoch,
                run_log,
                world=trainer.world,
                scorer=scorer,
                # Only all processes together can save a state and end; their batches differ here.
                on_batch=pause if trainer.world.size == 1 else None,
            )
        seconds["validation"] = watch.seconds if evaluation is not None else 0.0
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        run_log.write("time", {"epoch": epoch} | rounded)
        _step_schedule(trainer.scheduler, evaluation)
        is_best = _note_best(trainer, epoch, evaluation)
        is_first, is_last = left is None, epoch == n_epochs
        left = run.seconds / (epoch - start.epoch + 1) * (n_epochs - epoch)
        if is_first and not is_last:
            log.info("about %s left", duration(left))
        keeper.at_end_of_epoch(trainer.state, epoch, is_last=is_last, is_best=is_best)


def _in_words(left: float | None) -> str:
    return "" if left is None else f", about {duration(left)} left"


def _log_epoch(position: Position, n_epochs: int, rate: float, run_log: RunLog, time: str) -> None:
    loss, accuracy = position.loss_sum / position.n_clips, position.n_hits / position.n_clips
    run_log.write("train", {"epoch": position.epoch, "loss": loss, "acc": accuracy, "lr": rate})
    text = "epoch %d of %d: train loss %.4f, clip accuracy %.4f, rate %g, %s"
    log.info(text, position.epoch, n_epochs, loss, accuracy, rate, time)


def _warn_of_divergence(position: Position, n_classes: int, rate: float) -> None:
    """The cross entropy of equal scores, ln K, is the worst that a model should come to. One whose
    weights grow without end is far beyond: twice that and 1 leaves room for noisy first epochs."""
    loss, guessing = position.loss_sum / position.n_clips, math.log(n_classes)
    if loss > 2 * guessing + 1:
        log.warning(
            "epoch %d: the train loss, %.4g, is far above the %.2f of guessing among %d classes: "
            "training diverges; start again with a lower --learning_rate (now %g) or --clip_grad 1",
            position.epoch,
            loss,
            guessing,
            n_classes,
            rate,
        )


def _log_step(step: Step, rate: float, run_log: RunLog) -> None:
    epoch, batch = step.position.epoch, step.position.batches
    iteration = (epoch - 1) * step.n_batches + batch
    row = {"epoch": epoch, "batch": batch, "iter": iteration, "loss": step.loss}
    run_log.write("train_batch", row | {"acc": step.accuracy, "lr": rate})


def train_one_epoch(
    trainer: Trainer,
    loader: TrainLoader,
    *,
    position: Position,
    accumulate: int = 1,
    on_step: Callable[[Step], None] | None = None,
    on_batch: Callable[[], None] | None = None,
    pauses: CheckpointKeeper | None = None,
    watch: Stopwatch | None = None,
    title: str = "",
) -> Position:
    """One pass over the training clips, or what is left of it after `position`.

    Losses and hits stay on the device for up to MAX_LATE batches; `on_step` then hears of each of
    them, and `pauses` may save or end the run. `on_batch` is called after every batch at once.
    Returns the position at the end. Raises UserError on a loss that is not finite.
    """
    trainer.begin_epoch()
    batches, epoch, n_batches = loader.batches, position.epoch, len(loader)
    world = trainer.world
    batches.begin(epoch, after=position.batches)
    is_wanted = (lambda: False) if pauses is None else pauses.is_wanted
    late = Late(trainer, loader, n_batches, on_step)
    done = min(position.batches * batches.batch_size, batches.n_videos)
    with Bar(
        title or f"epoch {epoch}",
        batches.n_videos,
        "clip",
        initial=done,
        is_silent=not world.is_first,
    ) as bar:
        watched = (watch or Stopwatch()).waiting(loader)
        for number, batch in enumerate(trainer.device.ahead(watched), start=position.batches):
            # A process that wants a pause says so along with its clips, a step ahead of the pause.
            n_clips, n_wanting = world.sums([len(batch.labels), is_wanted()])
            ends = (number + 1) % accumulate == 0 or number + 1 == n_batches
            sums = None
            if n_clips or (ends and trainer.is_within_step):
                in_step = n_clips if accumulate == 1 else batches.clips_around(number, accumulate)
                sums = trainer.step(batch, n_clips=in_step, ends=ends)
            late.add(sums, batch.videos, int(n_clips))
            notes = {}
            if late.is_full or number + 1 == n_batches:
                position = late.told(position)
                notes = late.summary(position)
            bar.update(batches.clips_around(number, 1), **notes)
            if on_batch is not None:
                on_batch()
            if pauses is not None and ends and (n_wanting or (world.size == 1 and is_wanted())):
                position = late.told(position)
                pauses.inside_epoch(trainer.state, position._asdict())
    if position.n_clips == 0:
        raise UserError(f"epoch {epoch}: every training sample was left out as unreadable")
    _warn_of_skipped(loader, f"epoch {epoch}")
    return position


def validate(
    model: nn.Module,
    loader: ValLoader,
    device: Device,
    epoch: int,
    run_log: RunLog,
    *,
    world: World = ALONE,
    scorer: Callable[[nn.Module], Scorer] | None = None,
    on_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """evaluate() with its row in val.log."""
    title = f"validation {epoch}"
    evaluation = evaluate(
        model, loader, device=device, title=title, world=world, scorer=scorer, on_batch=on_batch
    )
    row = {"epoch": epoch, "loss": evaluation.loss, "acc": evaluation.clip_accuracy}
    run_log.write("val", row | {"video_acc": evaluation.video_accuracy})
    if run_log.board is not None:
        n_named, predictions = len(run_log.board.labels), evaluation.predictions
        n_classes = max(n_named, int(predictions.max(initial=0)) + 1)
        matrix = confusion_matrix(evaluation.targets, predictions, n_classes)
        run_log.board.confusion(matrix, epoch)
    log.info(
        "epoch %d: val loss %.4f, clip accuracy %.4f of %d, video accuracy %.4f of %d",
        epoch,
        evaluation.loss,
        evaluation.clip_accuracy,
        evaluation.n_clips,
        evaluation.video_accuracy,
        evaluation.n_videos,
    )
    _warn_of_skipped(loader, f"validation {epoch}")
    return evaluation


def _warn_of_skipped(loader: TrainLoader | ValLoader, title: str) -> None:
    if loader.skipped:
        reasons = loader.skipped
        log.warning("%s: %d samples left out, e.g. %s", title, len(reasons), reasons[0])


def _step_schedule(scheduler: Scheduler, evaluation: Evaluation | None) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        assert evaluation is not None, "the options let plateau through without validation"
        scheduler.step(evaluation.loss)
    else:
        scheduler.step()


def _note_best(trainer: Trainer, epoch: int, evaluation: Evaluation | None) -> bool:
    if evaluation is None:
        return False
    accuracy = evaluation.video_accuracy
    if trainer.best is not None and accuracy <= trainer.best["video_accuracy"]:
        return False
    trainer.best = {"epoch": epoch, "video_accuracy": accuracy}
    return True
