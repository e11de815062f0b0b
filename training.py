"""The state of training, one step and one epoch; fitting.py runs the epochs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datasets.samplers import ShuffledBatches
from datasets.video_dataset import ClipBatch, TrainLoader
from engine.batch_augment import BatchAugment
from engine.checkpoint import TRAINED
from engine.checkpoint_fields import Best
from engine.checkpoint_manager import CheckpointManager
from engine.device import Device, explained_out_of_memory
from engine.distributed import SINGLE_PROCESS, World, explain_lost_process
from engine.ema import WeightAverage
from engine.losses import IGNORE_INDEX, classification_loss
from engine.optim import Optimization
from engine.prefetch import MAX_PENDING, prefetch
from engine.progress import BatchMetrics, BatchSums, PendingMetrics, Position, Stopwatch
from engine.scoring import Network
from errors import UserError
from model import ONE_VALUE_PER_CHANNEL, norms_at_rest
from utils.progress_bar import Bar


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
    label_smoothing: float = 0.0
    augment: BatchAugment | None = None  # mixes the clips of a batch
    dropout_seed: int | None = None  # given if the network draws at random
    frozen_norms: Sequence[nn.Module] = ()
    padding_clips: Tensor | None = None  # (2, C, T, H, W), for processes without clips in a batch
    average: WeightAverage | None = None  # validated and saved in place of the model
    early_stopping: int = 0  # epochs without a better one; 0: never
    best: Best | None = None
    has_gradients: bool = field(default=False, init=False)  # accumulated, not yet applied

    def begin_epoch(self) -> None:
        """Switch to training mode; the first batch drops gradients of an interrupted epoch."""
        self.has_gradients = False
        self.model.train()
        for module in self.frozen_norms:
            module.eval()

    def run_batch(
        self,
        batch: ClipBatch,
        *,
        n_clips: float,
        updates: bool = True,
        epoch: int = 0,
        number: int = 0,
        others_lack_clips: bool = False,
    ) -> BatchSums:
        """Run one batch forward and backward; if it `updates`, then step the optimiser.

        The loss is the mean over `n_clips`: those of all processes, in all batches of the update.
        An empty batch of a single process only updates; one of several runs on padding, which
        leaves batch norm as it is. Random draws follow `epoch` and `number`, that of the batch.
        """
        if not self.has_gradients:
            self.optim.optimizer.zero_grad(set_to_none=True)
        self.has_gradients = not updates
        if not len(batch.labels) and self.world.size == 1:
            self._update()
            return BatchSums(*torch.zeros(2, device=self.device.torch_device))
        clips, targets = self._clips_and_targets(batch)
        is_padded = not len(batch.labels) or (others_lack_clips and self._has_shared_norms())
        norms = norms_at_rest(self.model) if is_padded else nullcontext()
        with explain_torch_errors(), explain_lost_process(), self._gradient_sync(updates), norms:
            logits, mixed = self._forward(clips, targets, epoch=epoch, number=number)
            loss = classification_loss(
                logits.float(),
                mixed,
                weight=self.class_weights,
                label_smoothing=self.label_smoothing,
            )
            # DDP averages gradients over processes: multiplying by their number makes it a sum.
            # Other processes may have all clips: max() is for the padding of this one.
            mean_loss = loss * (self.world.size / max(n_clips, 1))
            self.optim.scaler.scale(mean_loss).backward()
            if updates:
                self._update()
        n_hits = (logits.detach().argmax(dim=1) == targets).sum()
        return BatchSums(loss.detach(), n_hits)

    def _forward(
        self, clips: Tensor, targets: Tensor, *, epoch: int, number: int
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, K), and the targets as batch mixing leaves them.

        A function of its own, so that the normalised clips are freed before the backward pass.
        """
        inputs = self.network.to_input(clips)
        if self.augment is not None:
            inputs, targets = self.augment.mix(inputs, targets, epoch=epoch, number=number)
        if self.dropout_seed is not None:
            torch.manual_seed(_seed_of(self.dropout_seed, epoch, number, self.world.rank))
        with self.device.autocast():
            return self.network.module(inputs), targets

    def clips_of_update(self, batches: ShuffledBatches, number: int, n_clips: float) -> float:
        """Return the clips of all processes in the update that batch `number` is part of.

        `n_clips` are those of the batch. Of later batches, which are not read yet, unreadable clips
        count as well.
        """
        return n_clips if self.accumulate == 1 else batches.clips_around(number, self.accumulate)

    def _update(self) -> None:
        """Clip the gradients and step the optimiser, unless fp16 gradients overflowed."""
        optimizer, scaler = self.optim.optimizer, self.optim.scaler
        if self.optim.clip_grad:
            scaler.unscale_(optimizer)
            trained = (p for group in optimizer.param_groups for p in group["params"])
            nn.utils.clip_grad_norm_(trained, self.optim.clip_grad)
        is_first_update = scaler.is_enabled() and not optimizer.state
        scale = scaler.get_scale() if is_first_update else 0.0
        scaler.step(optimizer)
        scaler.update()
        self.optim.end_update()
        if is_first_update and scaler.get_scale() < scale:
            # It was skipped, but fused SGD has allocated momenta without initialising them.
            optimizer.state.clear()
        if self.average is not None:
            self.average.update(self.model)

    def _clips_and_targets(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Return the batch, or padding if this process has no clips: DDP needs its gradients."""
        if len(batch.labels):
            return batch.clips, batch.labels.to(self.device.torch_device, non_blocking=True)
        assert self.padding_clips is not None
        n_padding = len(self.padding_clips)
        return self.padding_clips, torch.full(
            (n_padding,), IGNORE_INDEX, device=self.device.torch_device
        )

    def _has_shared_norms(self) -> bool:
        """Return whether batch norms compute their statistics from the clips of all processes."""
        return any(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules())

    def share_statistics(self) -> None:
        """Give the scored model of every process the batch norm statistics of the first, which are
        those that are saved."""
        self.world.share_from_first(list(self.scored_model.buffers()))

    def _gradient_sync(self, updates: bool) -> Any:
        """Let DDP average gradients only in the batch that updates."""
        module = self.network.module
        if isinstance(module, DistributedDataParallel) and not updates:
            return module.no_sync()
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds: tensors, named without DDP's prefix, and plain values."""
        weights = {"state_dict": self.scored_model.state_dict()}
        if self.average is not None:
            weights[TRAINED] = self.model.state_dict()
        return weights | self.optim.state() | {"best": self.best}

    @property
    def scored_model(self) -> nn.Module:
        """The model that is validated, saved and used for inference."""
        return self.model if self.average is None else self.average.model


def _seed_of(*numbers: int) -> int:
    """Hash some numbers to a seed of torch's generators."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@contextmanager
def explain_torch_errors() -> Iterator[None]:
    """Turn torch errors that the user can act on into UserError."""
    advice = "halve --batch_size and double --accumulate for the same updates"
    try:
        with explained_out_of_memory(advice):
            yield
    except ValueError as error:
        if ONE_VALUE_PER_CHANNEL not in str(error):
            raise
        raise UserError(
            "a batch had only one readable clip, too few for batch norm at this --sample_size and "
            "--sample_duration: choose a larger --batch_size"
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

    `after_batch` is called after every batch. `on_metrics` gets the metrics of each batch, some
    batches later: they stay on the device until many are fetched together. Between two updates
    `checkpoints` may save, or end the run. Raises UserError for a loss that is not finite.
    """
    trainer.begin_epoch()
    batches, epoch, world = loader.batches, position.epoch, trainer.world
    batches.begin(epoch, after=position.batches)
    pending = _pending_metrics(trainer, loader, on_metrics)
    n_done = min(position.batches * batches.batch_size, batches.n_videos)
    bar = Bar(title, batches.n_videos, "clip", initial=n_done, is_silent=not world.is_first)
    with bar:
        timed_batches = (stopwatch or Stopwatch()).timed(loader)
        on_device = prefetch(timed_batches, trainer.device.torch_device)
        for number, batch in enumerate(on_device, start=position.batches):
            is_save_due = checkpoints is not None and checkpoints.is_save_due()
            # One exchange per batch: the number of clips, the processes that lack some, and those
            # that have to save.
            n_own = len(batch.labels)
            n_clips, n_lacking, n_saving = world.sums([n_own, not n_own, is_save_due])
            ends_epoch = number + 1 == len(loader)
            updates = (number + 1) % trainer.accumulate == 0 or ends_epoch
            sums, rate = None, trainer.optim.learning_rate
            if n_clips or (updates and trainer.has_gradients):
                n_in_update = trainer.clips_of_update(batches, number, n_clips)
                sums = trainer.run_batch(
                    batch,
                    n_clips=n_in_update,
                    updates=updates,
                    epoch=epoch,
                    number=number,
                    others_lack_clips=n_lacking > 0,
                )
            pending.add(sums, batch.videos, int(n_clips), rate)
            if pending.is_full or ends_epoch:
                position = pending.flush(position)
                bar.show(loss=f"{position.loss:.3f}", acc=f"{position.accuracy:.3f}")
            bar.update(batches.clips_around(number, 1))
            if after_batch is not None:
                after_batch()
            if checkpoints is None or not updates:
                continue
            if n_saving or (world.size == 1 and checkpoints.is_save_due()):
                position = pending.flush(position)
                checkpoints.save_inside_epoch(trainer.state, position._asdict())
    if position.n_clips == 0:
        raise UserError(f"epoch {epoch}: no training video could be read")
    return position


def _pending_metrics(
    trainer: Trainer, loader: TrainLoader, on_metrics: Callable[[BatchMetrics], None] | None
) -> PendingMetrics:
    """Fetch sums after every batch where that waits for nothing: a single process on a CPU."""
    is_immediate = trainer.device.torch_device.type == "cpu" and trainer.world.size == 1
    return PendingMetrics(
        trainer.world,
        limit=1 if is_immediate else MAX_PENDING,
        video_ids=lambda videos: [loader.video_id(video) for video in videos.tolist()],
        on_metrics=on_metrics,
    )
