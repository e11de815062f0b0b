"""How far an epoch is, what its steps told, and where its time went."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from datasets.video_dataset import TrainLoader
from engine.device import MAX_LATE
from errors import UserError
from trainer import StepSums, Trainer

WAITS_TOO_LONG = 0.2  # of an epoch's time

T = TypeVar("T")


class Position(NamedTuple):
    """How far into an epoch a run is: what a checkpoint inside one holds beside the weights."""

    epoch: int
    batches: int = 0  # done
    loss_sum: float = 0.0
    n_hits: int = 0
    n_clips: int = 0

    def after(self, loss: float, hits: int, n_clips: int) -> "Position":
        """The position one batch further; `loss` is the sum over its clips."""
        return Position(
            self.epoch,
            self.batches + 1,
            self.loss_sum + loss,
            self.n_hits + hits,
            self.n_clips + n_clips,
        )


class Step(NamedTuple):
    """One optimiser step, as the hook of train_one_epoch sees it."""

    position: Position  # after it
    n_batches: int
    loss: float
    accuracy: float


class Late:
    """Steps whose losses have not been fetched from the device yet."""

    def __init__(
        self,
        trainer: Trainer,
        loader: TrainLoader,
        n_batches: int,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.world, self.loader = trainer.world, loader
        self.n_batches, self.on_step = n_batches, on_step
        # On a lone CPU there is nothing to wait for.
        self.limit = 1 if trainer.device.device.type == "cpu" and self.world.size == 1 else MAX_LATE
        self._steps: list[tuple[StepSums | None, Tensor, int]] = []  # and videos, clips of all

    @property
    def is_full(self) -> bool:
        return len(self._steps) >= self.limit

    def add(self, sums: StepSums | None, videos: Tensor, n_clips: int) -> None:
        """`videos` are the numbers of this process's, `n_clips` those of all processes."""
        self._steps.append((sums, videos, n_clips))

    def told(self, position: Position) -> Position:
        """Fetch all, over all processes, and tell each step; the position after the last."""
        known = [sums for sums, _, _ in self._steps if sums is not None]
        own = [torch.stack(list(column)).double() for column in zip(*known, strict=True)]
        flat = self.world.sums(torch.cat(own).tolist() if own else [])
        pairs = iter(zip(flat[: len(known)], flat[len(known) :], strict=True))
        for sums, videos, n_clips in self._steps:
            loss, hits = (0.0, 0.0) if sums is None else next(pairs)
            if not math.isfinite(loss):
                raise UserError(self._divergence(loss, position, videos))
            position = position.after(loss, int(hits), n_clips)
            if self.on_step is not None and n_clips:
                self.on_step(Step(position, self.n_batches, loss / n_clips, hits / n_clips))
        self._steps.clear()
        return position

    def summary(self, position: Position) -> dict[str, str]:
        n = max(position.n_clips, 1)
        return {"loss": f"{position.loss_sum / n:.3f}", "acc": f"{position.n_hits / n:.3f}"}

    def _divergence(self, loss: float, position: Position, videos: Tensor) -> str:
        ids = self.world.gather([self.loader.video_id(video) for video in videos.tolist()])
        return (
            f"epoch {position.epoch}, batch {position.batches + 1}: the loss is {loss}; try a "
            f"lower --learning_rate. Videos of the batch: {', '.join(chain(*ids))}"
        )


class Stopwatch:
    """Splits the time of an epoch into waiting for clips and the rest."""

    def __init__(self) -> None:
        self.started, self.waited = time.monotonic(), 0.0

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        iterator = iter(items)
        while True:
            asked = time.monotonic()
            item = next(iterator, None)
            self.waited += time.monotonic() - asked
            if item is None:
                return
            yield item

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        total = self.seconds
        share = self.waited / max(total, 1e-9)
        limit = "loading: try more --n_threads" if share > WAITS_TOO_LONG else "computing"
        return f"{total:.0f} s, {share:.0%} of it waiting for clips (the limit is {limit})"
