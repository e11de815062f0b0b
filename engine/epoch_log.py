"""What a training run logs of each batch and epoch."""

import logging
import math
from collections.abc import Sequence

from engine.progress import BatchMetrics, Position, Stopwatch
from engine.run_log import RunLog

log = logging.getLogger(__name__)


def log_batch(run_log: RunLog, n_batches: int, metrics: BatchMetrics) -> None:
    epoch, batch = metrics.position.epoch, metrics.position.batches
    iteration = (epoch - 1) * n_batches + batch
    row = {"epoch": epoch, "batch": batch, "iter": iteration, "loss": metrics.loss}
    run_log.write("train_batch", row | {"acc": metrics.accuracy, "lr": metrics.learning_rate})


def log_epoch(position: Position, of: str, rate: float, run_log: RunLog, time: str) -> None:
    epoch, loss, accuracy = position.epoch, position.loss, position.accuracy
    run_log.write("train", {"epoch": epoch, "loss": loss, "acc": accuracy, "lr": rate})
    text = "epoch %d %s: train loss %.4f, clip accuracy %.4f, rate %g, %s"
    log.info(text, epoch, of, loss, accuracy, rate, time)


def log_times(
    run_log: RunLog, epoch: int, training: Stopwatch, validation: Stopwatch, n_clips: int
) -> None:
    """Write a row of time.log; `n_clips` were trained on."""
    seconds = {
        "train": training.seconds,
        "waiting": training.waited,
        "clips_per_second": n_clips / training.seconds,
        "validation": validation.seconds,
    }
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    run_log.write("time", {"epoch": epoch} | rounded)


def warn_of_divergence(position: Position, n_classes: int, rate: float) -> None:
    """Warn of a loss far above ln K, the cross entropy of equal scores: a model whose weights grow
    without bound. Twice that plus 1 leaves room for noisy first epochs."""
    chance = math.log(n_classes)
    if position.loss > 2 * chance + 1:
        log.warning(
            "epoch %d: the train loss, %.4g, is far above the %.2f of guessing among %d classes: "
            "training diverges; start again with a lower --learning_rate (now %g) or --clip_grad 1",
            position.epoch,
            position.loss,
            chance,
            n_classes,
            rate,
        )


def warn_of_skipped(reasons: Sequence[str], title: str) -> None:
    if reasons:
        log.warning("%s: skipped %d unreadable samples, e.g. %s", title, len(reasons), reasons[0])
