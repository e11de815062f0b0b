"""The epoch loop: train, validate, step the schedule, save."""

import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau
from tqdm import tqdm

from datasets.video_dataset import ClipBatch, ClipLoader, ShuffledBatches
from errors import UserError
from model import frozen_batch_norms
from opts import Options
from runtime.checkpoint import Checkpoint, load_optimizer
from runtime.device import Device
from runtime.keeper import CheckpointKeeper
from runtime.run_log import RunLog
from validation import Evaluation, evaluate

Scheduler = MultiStepLR | ReduceLROnPlateau

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far into an epoch a run is: what a checkpoint inside one holds beside the weights."""

    epoch: int
    batches: int = 0  # done
    loss_sum: float = 0.0
    n_hits: int = 0
    n_clips: int = 0

    def after(self, loss: float, hits: int, n_clips: int) -> "Position":
        """The position one batch further; `loss` is its mean."""
        return Position(
            self.epoch,
            self.batches + 1,
            self.loss_sum + loss * n_clips,
            self.n_hits + hits,
            self.n_clips + n_clips,
        )


class Step(NamedTuple):
    """One optimiser step, as the hook of train_one_epoch sees it."""

    position: Position  # after it
    n_batches: int
    loss: float
    accuracy: float


@dataclass
class Trainer:
    """A model and everything that changes with it while it is trained."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    scaler: torch.amp.GradScaler
    device: Device
    best: dict[str, float] | None = None  # {"epoch", "video_accuracy"} of best.pth
    kept_statistics: Sequence[nn.Module] = ()  # batch norms that stay in evaluation mode

    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it: tensors and plain values, the model's names as built."""
        scheduler = self.scheduler.state_dict()
        if "milestones" in scheduler:
            scheduler["milestones"] = dict(scheduler["milestones"])  # a Counter is no plain value
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "versions": {"torch": str(torch.__version__)},
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the optimiser and schedule of a file, if it holds them.

        Raises UserError if they don't fit.
        """
        if checkpoint.optimizer is None or checkpoint.scheduler is None:
            log.warning("%s: holds weights only: the optimiser starts afresh", checkpoint.path)
            return
        try:
            load_optimizer(self.optimizer, checkpoint.optimizer)
        except ValueError as error:
            raise UserError(
                f"{checkpoint.path}: {error}; resume with the --ft_begin_module it was saved with"
            ) from None
        state = dict(checkpoint.scheduler)
        if "milestones" in state:
            state["milestones"] = Counter(state["milestones"])
        self.scheduler.load_state_dict(state)
        self.scaler.load_state_dict(checkpoint.extra.get("scaler") or {})
        self.best = checkpoint.extra.get("best")
        if not checkpoint.is_ours and isinstance(self.scheduler, MultiStepLR):
            with warnings.catch_warnings():  # it expects an optimiser step of this process first
                warnings.simplefilter("ignore", UserWarning)
                self.scheduler.step()


def build_trainer(
    options: Options, model: nn.Module, device: Device, checkpoint: Checkpoint | None
) -> Trainer:
    """SGD over the trained parameters with the schedule of the flags, resumed if asked."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Fine-tuning gets a group per parameter, as the original's: its resume expects the same.
    grouped = bool(options.ft_begin_module)
    optimizer = torch.optim.SGD(
        [{"params": [p]} for p in parameters] if grouped else parameters,
        lr=options.learning_rate,
        momentum=options.momentum,
        dampening=options.dampening,
        weight_decay=options.weight_decay,
        nesterov=options.nesterov,
    )
    scheduler: Scheduler
    if options.lr_scheduler == "plateau":
        scheduler = ReduceLROnPlateau(optimizer, "min", patience=options.plateau_patience)
    else:
        scheduler = MultiStepLR(optimizer, options.multistep_milestones)
    trainer = Trainer(model, optimizer, scheduler, device.grad_scaler(), device)
    if options.freeze_bn:
        trainer.kept_statistics = frozen_batch_norms(model)
    if checkpoint is not None:
        trainer.resume(checkpoint)
        if options.overwrite_milestones and isinstance(scheduler, MultiStepLR):
            scheduler.milestones = Counter(options.multistep_milestones)
    return trainer


def fit(
    trainer: Trainer,
    train_loader: ClipLoader,
    val_loader: ClipLoader | None,
    *,
    start: Position,
    n_epochs: int,
    run_log: RunLog,
    keeper: CheckpointKeeper,
) -> None:
    """Train from `start` to the end of epoch `n_epochs`; validate, log and save each epoch.

    Raises Interrupted between two batches after a signal, with all that is done saved.
    """
    for epoch in range(start.epoch, n_epochs + 1):
        started, rate = time.monotonic(), trainer.learning_rate()
        position = start if epoch == start.epoch else Position(epoch)

        def log_step(step: Step) -> None:
            _log_step(step, trainer.learning_rate(), run_log)
            keeper.inside_epoch(trainer.state, step.position._asdict())

        position = train_one_epoch(trainer, train_loader, position=position, on_step=log_step)
        loss, accuracy = position.loss_sum / position.n_clips, position.n_hits / position.n_clips
        run_log.write("train", {"epoch": epoch, "loss": loss, "acc": accuracy, "lr": rate})
        log.info(
            "epoch %d of %d: train loss %.4f, clip accuracy %.4f, rate %g, %.0f s",
            epoch,
            n_epochs,
            loss,
            accuracy,
            rate,
            time.monotonic() - started,
        )
        evaluation = None
        if val_loader is not None:
            pause = partial(keeper.inside_epoch, trainer.state, position._asdict())
            evaluation = validate(
                trainer.model, val_loader, trainer.device, epoch, run_log, on_batch=pause
            )
        _step_schedule(trainer.scheduler, evaluation)
        is_best = _note_best(trainer, epoch, evaluation)
        keeper.at_end_of_epoch(trainer.state, epoch, is_last=epoch == n_epochs, is_best=is_best)


def _log_step(step: Step, rate: float, run_log: RunLog) -> None:
    epoch, batch = step.position.epoch, step.position.batches
    iteration = (epoch - 1) * step.n_batches + batch
    row = {"epoch": epoch, "batch": batch, "iter": iteration, "loss": step.loss}
    run_log.write("train_batch", row | {"acc": step.accuracy, "lr": rate})


def train_one_epoch(
    trainer: Trainer,
    loader: ClipLoader,
    *,
    position: Position,
    on_step: Callable[[Step], None] | None = None,
) -> Position:
    """One pass over the training clips, or what is left of it after `position`.

    Returns the position at its end. Raises UserError on a loss that is not finite.
    """
    _set_modes(trainer)
    assert isinstance(loader.batches, ShuffledBatches)
    epoch, n_batches = position.epoch, len(loader)
    loader.batches.begin(epoch, after=position.batches)
    bar = tqdm(
        loader,
        desc=f"epoch {epoch}",
        initial=position.batches,
        total=n_batches,
        leave=False,
        disable=None,
    )
    for batch in bar:
        loss, hits = train_step(trainer, batch)
        size = len(batch.labels)
        if not math.isfinite(loss):
            raise UserError(_divergence(loss, epoch, position.batches + 1, batch, loader))
        position = position.after(loss, hits, size)
        bar.set_postfix(loss=f"{loss:.3f}", acc=f"{position.n_hits / position.n_clips:.3f}")
        if on_step is not None:
            on_step(Step(position, n_batches, loss, hits / size))
    if position.n_clips == 0:
        raise UserError(f"epoch {epoch}: every training sample was left out as unreadable")
    _warn_of_skipped(loader, f"epoch {epoch}")
    return position


def _set_modes(trainer: Trainer) -> None:
    """Training mode, but for the batch norms whose statistics are kept."""
    trainer.model.train()
    for module in trainer.kept_statistics:
        module.eval()


def train_step(trainer: Trainer, batch: ClipBatch) -> tuple[float, int]:
    """Forward, backward, update. Returns the mean loss and how many clips were right."""
    targets = batch.labels.to(trainer.device.device, non_blocking=True)
    try:
        with trainer.device.autocast():
            logits = trainer.model(trainer.device.model_input(batch.clips))  # (B, K)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "a batch of one clip leaves batch norm a single value at this --sample_size and "
            "--sample_duration: choose a --batch_size that does not leave one clip over"
        ) from None
    loss: Tensor = F.cross_entropy(logits.float(), targets)
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.scaler.scale(loss).backward()
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    return loss.item(), int((logits.argmax(dim=1) == targets).sum())


def _divergence(loss: float, epoch: int, number: int, batch: ClipBatch, loader: ClipLoader) -> str:
    ids = ", ".join(loader.video_id(video) for video in batch.videos.tolist())
    return (
        f"epoch {epoch}, batch {number}: the loss is {loss}; try a lower --learning_rate. "
        f"Videos of the batch: {ids}"
    )


def validate(
    model: nn.Module,
    loader: ClipLoader,
    device: Device,
    epoch: int,
    run_log: RunLog,
    *,
    on_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """evaluate() with its row in val.log."""
    title = f"validation {epoch}"
    evaluation = evaluate(model, loader, device=device, title=title, on_batch=on_batch)
    row = {"epoch": epoch, "loss": evaluation.loss, "acc": evaluation.clip_accuracy}
    run_log.write("val", row | {"video_acc": evaluation.video_accuracy})
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


def _warn_of_skipped(loader: ClipLoader, title: str) -> None:
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
