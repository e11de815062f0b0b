"""How far an epoch is, the metrics of its steps, and where its time went."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from engine.distributed import World
from errors import UserError
from utils.progress_bar import duration

MAX_WAITING_SHARE = 0.2  # of an epoch's time; above it, loading clips is the bottleneck

T = TypeVar("T")

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far training is: saved in a checkpoint, next to the weights."""

    epoch: int
    batches: int = 0  # finished batches of the epoch
    loss_sum: float = 0.0  # over their clips
    n_hits: int = 0
    n_clips: int = 0

    def after(self, loss_sum: float, n_hits: int, n_clips: int) -> "Position":
        """Return the position one batch later."""
        return Position(
            self.epoch,
            self.batches + 1,
            self.loss_sum + loss_sum,
            self.n_hits + n_hits,
            self.n_clips + n_clips,
        )

    @property
    def loss(self) -> float:
        """The mean loss of the epoch's clips so far."""
        return self.loss_sum / max(self.n_clips, 1)

    @property
    def accuracy(self) -> float:
        return self.n_hits / max(self.n_clips, 1)


class BatchSums(NamedTuple):
    """Sums over the clips of one batch; tensors on the device, so that nothing waits for them."""

    loss: Tensor
    n_hits: Tensor


class BatchMetrics(NamedTuple):
    """The means over one batch's clips, of all processes together."""

    position: Position  # after the batch
    loss: float
    accuracy: float
    learning_rate: float  # of the update that the batch is part of


class PendingMetrics:
    """The sums of recent batches, left on the device and fetched many at a time.

    `on_metrics` gets the metrics of every batch that had clips, in order. `video_ids` names the
    videos of a batch whose loss is not finite.
    """

    def __init__(
        self,
        world: World,
        *,
        limit: int,
        video_ids: Callable[[Tensor], list[str]],
        on_metrics: Callable[[BatchMetrics], None] | None = None,
    ) -> None:
        self.world, self.limit = world, limit
        self.video_ids, self.on_metrics = video_ids, on_metrics
        self._pending: list[tuple[BatchSums | None, Tensor, int, float]] = []

    @property
    def is_full(self) -> bool:
        return len(self._pending) >= self.limit

    def add(self, sums: BatchSums | None, videos: Tensor, n_clips: int, rate: float) -> None:
        """Keep a batch: `videos` of this process, `n_clips` of all processes, its learning rate."""
        self._pending.append((sums, videos, n_clips, rate))

    def flush(self, position: Position) -> Position:
        """Sum the pending batches over all processes, report each, return the new position.

        Raises UserError for a loss that is not finite.
        """
        known = [sums for sums, *_ in self._pending if sums is not None]
        own = [torch.stack(list(column)).double() for column in zip(*known, strict=True)]
        flat = self.world.sums(torch.cat(own).tolist() if own else [])
        totals = iter(zip(flat[: len(known)], flat[len(known) :], strict=True))
        for sums, videos, n_clips, rate in self._pending:
            loss, n_hits = (0.0, 0.0) if sums is None else next(totals)
            if not math.isfinite(loss):
                raise UserError(self._divergence(loss, position, videos))
            position = position.after(loss, int(n_hits), n_clips)
            if self.on_metrics is not None and n_clips:
                self.on_metrics(BatchMetrics(position, loss / n_clips, n_hits / n_clips, rate))
        self._pending.clear()
        return position

    def _divergence(self, loss: float, position: Position, videos: Tensor) -> str:
        ids = chain(*self.world.gather(self.video_ids(videos)))
        return (
            f"epoch {position.epoch}, batch {position.batches + 1}: the loss is {loss}; try a "
            f"lower --learning_rate. Videos of the batch: {', '.join(ids)}"
        )


class TimeLeft:
    """Estimates how long training takes until its last epoch; as text, ", about 5 min left"."""

    def __init__(self, first_epoch: int, n_epochs: int) -> None:
        self.first_epoch, self.n_epochs = first_epoch, n_epochs
        self._started = time.monotonic()
        self._end: float | None = None  # estimated, once an epoch is done

    def end_epoch(self, epoch: int) -> None:
        """Renew the estimate; log the first one."""
        now, n_done = time.monotonic(), epoch - self.first_epoch + 1
        is_first, left = self._end is None, self.n_epochs - epoch
        self._end = now + (now - self._started) / n_done * left
        if is_first and left:
            log.info("about %s left", duration(self._end - now))

    def __str__(self) -> str:
        if self._end is None:
            return ""
        return f", about {duration(max(0.0, self._end - time.monotonic()))} left"


class Stopwatch:
    """Splits time into waiting for clips and the rest."""

    def __init__(self) -> None:
        self.started, self.waited = time.monotonic(), 0.0
        self._stopped: float | None = None

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, counting the time until each one is there as waiting."""
        iterator = iter(items)
        while True:
            asked = time.monotonic()
            item = next(iterator, None)
            self.waited += time.monotonic() - asked
            if item is None:
                return
            yield item

    def stop(self) -> None:
        self._stopped = time.monotonic()

    @property
    def seconds(self) -> float:
        """From its making until it was stopped, or until now."""
        return (self._stopped or time.monotonic()) - self.started

    def __str__(self) -> str:
        total = self.seconds
        share = self.waited / max(total, 1e-9)
        is_loading = share > MAX_WAITING_SHARE
        bottleneck = "loading: try more --n_threads" if is_loading else "computing"
        return f"{total:.0f} s, {share:.0%} of it waiting for clips (bottleneck: {bottleneck})"
