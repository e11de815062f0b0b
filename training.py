"""All of training: the state, one step, one epoch, and `fit`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datasets.video_dataset import ClipBatch, TrainLoader, ValLoader
from engine.checkpoint_fields import Best
from engine.checkpoint_manager import CheckpointManager
from engine.device import Device, is_out_of_memory
from engine.distributed import SINGLE_PROCESS, World, explain_lost_process
from engine.epoch_log import log_batch, log_epoch, warn_of_divergence, warn_of_skipped
from engine.optim import Optimization
from engine.prefetch import MAX_PENDING, prefetch
from engine.progress import (
    BatchMetrics,
    BatchSums,
    PendingMetrics,
    Position,
    Stopwatch,
    TimeLeft,
)
from engine.run_log import RunLog
from engine.scoring import Network
from errors import UserError
from model import ONE_VALUE_PER_CHANNEL
from utils.progress_bar import Bar
from validation import Evaluation, validate

IGNORE_INDEX = -100  # of cross entropy: the target of padding clips on ranks without clips


@dataclass(kw_only=True)
class Trainer:
    """A model and everything that changes while it is trained.

    `network` is what steps run: the model on clips, or its head on cached features. `frozen_norms`
    are batch norms that keep their statistics. `class_weights`, (K,) on the device, weight the
    loss; their mean over the training videos is 1.
    """

    model: nn.Module
    network: Network
    optim: Optimization
    device: Device
    n_classes: int
    world: World = SINGLE_PROCESS
    accumulate: int = 1  # batches per update
    class_weights: Tensor | None = None
    frozen_norms: Sequence[nn.Module] = ()
    padding_clips: Tensor | None = None  # (2, C, T, H, W); needed with several processes only
    best: Best | None = None
    has_gradients: bool = field(default=False, init=False)  # that no update has used yet

    def begin_epoch(self) -> None:
        """Switch to training mode and drop old gradients."""
        self.has_gradients = False
        self.model.train()
        for module in self.frozen_norms:
            module.eval()

    def step(self, batch: ClipBatch, *, n_clips: float, is_last: bool = True) -> BatchSums:
        """Run one batch forward and backward; update the weights if it `is_last` of its step.

        The loss is the mean over `n_clips`: those of all processes and of all batches that are
        accumulated to one update. An empty batch of a single process only updates.
        """
        if not self.has_gradients:
            self.optim.optimizer.zero_grad(set_to_none=True)
        self.has_gradients = not is_last
        if not len(batch.labels) and self.world.size == 1:
            self._update()
            return BatchSums(*torch.zeros(2))
        clips, targets = self._clips_and_targets(batch)
        with explain_torch_errors(), explain_lost_process(), self._gradient_sync(is_last):
            with self.device.autocast():
                logits = self.network.module(self.network.to_input(clips))  # (B, K)
            loss = F.cross_entropy(
                logits.float(),
                targets,
                weight=self.class_weights,
                reduction="sum",
                ignore_index=IGNORE_INDEX,
            )
            # DDP averages gradients over processes, so that their number is multiplied back in.
            mean_loss = loss * (self.world.size / max(n_clips, 1))
            self.optim.scaler.scale(mean_loss).backward()
            if is_last:
                self._update()
        n_hits = (logits.detach().argmax(dim=1) == targets).sum()
        return BatchSums(loss.detach(), n_hits)

    def _update(self) -> None:
        """Clip the gradients and step the optimiser, unless fp16 gradients overflowed."""
        optimizer, scaler = self.optim.optimizer, self.optim.scaler
        if self.optim.clip_grad:
            scaler.unscale_(optimizer)
            trained = (p for group in optimizer.param_groups for p in group["params"])
            nn.utils.clip_grad_norm_(trained, self.optim.clip_grad)
        is_first = scaler.is_enabled() and not optimizer.state
        scale = scaler.get_scale() if is_first else 0.0
        scaler.step(optimizer)
        scaler.update()
        if is_first and scaler.get_scale() < scale:
            # The step was skipped, but fused SGD has allocated momenta without initialising them.
            optimizer.state.clear()

    def _clips_and_targets(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Return the batch, or padding for a rank without clips: DDP needs its gradients too."""
        if len(batch.labels):
            return batch.clips, batch.labels.to(self.device.device, non_blocking=True)
        assert self.padding_clips is not None
        n_padding = len(self.padding_clips)
        return self.padding_clips, torch.full((n_padding,), IGNORE_INDEX, device=self.device.device)

    def _gradient_sync(self, is_last: bool) -> Any:
        """Let DDP average gradients in the last batch of a step only."""
        module = self.network.module
        if isinstance(module, DistributedDataParallel) and not is_last:
            return module.no_sync()
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: tensors and plain values, names as the model has them."""
        weights = {"state_dict": self.model.state_dict()}
        return weights | self.optim.state() | {"best": self.best}


@contextmanager
def explain_torch_errors() -> Iterator[None]:
    """Turn torch errors that the user can act on into UserError."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "out of memory: half the --batch_size with twice the --accumulate makes the same steps"
        ) from None
    except ValueError as error:
        if ONE_VALUE_PER_CHANNEL not in str(error):
            raise
        raise UserError(
            "a batch had a single readable clip, of which batch norm gets one value per channel at "
            "this --sample_size and --sample_duration: choose a larger --batch_size"
        ) from None


def train_one_epoch(
    trainer: Trainer,
    loader: TrainLoader,
    *,
    position: Position,
    title: str = "",
    stopwatch: Stopwatch | None = None,
    after_batch: Callable[[], None] | None = None,
    on_metrics: Callable[[BatchMetrics], None] | None = None,
    checkpoints: CheckpointManager | None = None,
) -> Position:
    """Train on what is left of an epoch after `position`; return the position at its end.

    Metrics stay on the device for some batches, then `on_metrics` gets each of them. `after_batch`
    is called after every batch; between two updates `checkpoints` may save, or end the run.
    Raises UserError for a loss that is not finite.
    """
    trainer.begin_epoch()
    batches, epoch, world = loader.batches, position.epoch, trainer.world
    batches.begin(epoch, after=position.batches)
    is_single_cpu = trainer.device.device.type == "cpu" and world.size == 1
    pending = PendingMetrics(
        world,
        limit=1 if is_single_cpu else MAX_PENDING,
        video_ids=lambda videos: [loader.video_id(video) for video in videos.tolist()],
        after_batch=on_metrics,
    )
    n_done = min(position.batches * batches.batch_size, batches.n_videos)
    bar = Bar(title, batches.n_videos, "clip", initial=n_done, is_silent=not world.is_first)
    with bar:
        clips = (stopwatch or Stopwatch()).timed(loader)
        ready = prefetch(clips, trainer.device.device)
        for number, batch in enumerate(ready, start=position.batches):
            wants_pause = checkpoints is not None and checkpoints.wants_pause()
            # Processes agree on a pause one step ahead, along with the number of their clips.
            n_clips, n_wanting = world.sums([len(batch.labels), wants_pause])
            is_last_batch = number + 1 == len(loader)
            is_last = (number + 1) % trainer.accumulate == 0 or is_last_batch
            sums = None
            if n_clips or (is_last and trainer.has_gradients):
                n_in_step = n_clips
                if trainer.accumulate > 1:
                    n_in_step = batches.clips_around(number, trainer.accumulate)
                sums = trainer.step(batch, n_clips=n_in_step, is_last=is_last)
            pending.add(sums, batch.videos, int(n_clips))
            if pending.is_full or is_last_batch:
                position = pending.flush(position)
                bar.show(loss=f"{position.loss:.3f}", acc=f"{position.accuracy:.3f}")
            bar.update(batches.clips_around(number, 1))
            if after_batch is not None:
                after_batch()
            if checkpoints is not None and is_last:
                if n_wanting or (world.size == 1 and checkpoints.wants_pause()):
                    position = pending.flush(position)
                    checkpoints.inside_epoch(trainer.state, position._asdict())
    if position.n_clips == 0:
        raise UserError(f"epoch {epoch}: no training video could be read")
    return position


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
) -> None:
    """Train from `start` to the end of epoch `n_epochs`; validate, log and save each epoch.

    Raises Interrupted between two batches after a signal, with everything saved.
    """
    time_left = TimeLeft(start.epoch, n_epochs)
    for epoch in range(start.epoch, n_epochs + 1):
        rate, stopwatch = trainer.optim.learning_rate, Stopwatch()
        begin = start if epoch == start.epoch else Position(epoch)
        position = train_one_epoch(
            trainer,
            train_loader,
            position=begin,
            title=f"epoch {epoch} of {n_epochs}{time_left}",
            stopwatch=stopwatch,
            after_batch=after_batch,
            on_metrics=partial(log_batch, run_log, trainer.optim, len(train_loader)),
            checkpoints=checkpoints,
        )
        log_epoch(position, f"of {n_epochs}", rate, run_log, f"{stopwatch}{time_left}")
        warn_of_divergence(position, trainer.n_classes, rate)
        warn_of_skipped(train_loader.skipped, f"epoch {epoch}")
        n_clips = position.n_clips - begin.n_clips
        seconds = {"train": stopwatch.seconds, "waiting": stopwatch.waited}
        seconds["clips_per_second"] = n_clips / stopwatch.seconds
        evaluation, stopwatch = None, Stopwatch()
        if val_loader is not None:
            pause = partial(checkpoints.inside_epoch, trainer.state, position._asdict())
            evaluation = validate(
                trainer.network.make_scorer(),
                val_loader,
                trainer.device,
                epoch,
                run_log,
                world=trainer.world,
                # Several processes can only save and end together; here their batches differ.
                before_batch=pause if trainer.world.size == 1 else None,
            )
        seconds["validation"] = 0.0 if evaluation is None else stopwatch.seconds
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        run_log.write("time", {"epoch": epoch} | rounded)
        trainer.optim.end_epoch(None if evaluation is None else evaluation.loss)
        is_best = _note_best(trainer, epoch, evaluation)
        time_left.end_epoch(epoch)
        is_last = epoch == n_epochs
        checkpoints.at_end_of_epoch(trainer.state, epoch, is_last=is_last, is_best=is_best)


def _note_best(trainer: Trainer, epoch: int, evaluation: Evaluation | None) -> bool:
    """Remember the epoch if its video accuracy is the best so far; return whether it is."""
    if evaluation is None:
        return False
    accuracy = evaluation.video_accuracy
    if trainer.best is not None and accuracy <= trainer.best["video_accuracy"]:
        return False
    trainer.best = {"epoch": epoch, "video_accuracy": accuracy}
    return True
