"""Evaluate a model on validation clips: loss, clip accuracy and video accuracy."""

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.video_dataset import ValLoader
from engine.device import Device
from engine.distributed import SINGLE_PROCESS, World
from engine.epoch_log import warn_of_skipped
from engine.prefetch import fetched, prefetch
from engine.run_log import RunLog
from engine.scoring import Scorer
from errors import UserError
from evaluation.metrics import confusion_matrix, topk_hits
from inference import check_finite
from utils.progress_bar import Bar

log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """The metrics of one pass. A video's scores are the mean softmax of its clips."""

    loss: float  # mean cross entropy of the clips
    clip_accuracy: float
    video_accuracy: float
    n_clips: int
    targets: np.ndarray  # (N,) class numbers of the videos
    predictions: np.ndarray  # (N,) class numbers of the highest scores

    @property
    def n_videos(self) -> int:
        return len(self.targets)


class ClipScores(NamedTuple):
    """A batch of clips: loss (N,), softmax (N, K), label (N,) and video (N,)."""

    losses: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    videos: np.ndarray


def evaluate(
    score: Scorer,
    loader: ValLoader,
    *,
    device: Device,
    title: str,
    world: World = SINGLE_PROCESS,
    before_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """Score validation clips, uint8 (B, C, T, H, W) or what else `score` takes, and summarise.

    Each process scores its share of the videos, and all return the same result. `before_batch` is
    called before each batch and may end the pass by raising. Raises UserError if no clip could be
    read, and on NaN or infinity.
    """
    clips: list[ClipScores] = []
    bar = Bar(title, loader.n_videos, "video", is_silent=not world.is_first)

    def scored() -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        for batch in prefetch(loader, device.torch_device):
            if before_batch is not None:
                before_batch()
            if len(batch.labels):
                logits = score(batch.clips)  # (B, C, T, H, W) -> (B, K)
                targets = batch.labels.to(logits.device, non_blocking=True)
                losses = F.cross_entropy(logits, targets, reduction="none")
                columns = torch.cat([losses[:, None], logits.softmax(dim=1)], dim=1)
                yield (batch.labels, batch.videos), columns
            bar.update(batch.n_videos)

    with bar:
        for (labels, videos), columns in fetched(scored(), device.torch_device):
            for video, row in zip(videos.tolist(), columns.numpy(), strict=True):
                check_finite(row, f"{title}: {loader.video_id(video)}")
            losses, scores = columns[:, 0].numpy(), columns[:, 1:].numpy()
            clips.append(ClipScores(losses, scores, labels.numpy(), videos.numpy()))
    together = [part for parts in world.gather(clips) for part in parts]
    if not together:
        raise UserError("validation: none of the clips could be read")
    return _summarise(ClipScores(*map(np.concatenate, zip(*together, strict=True))))


def validate(
    score: Scorer,
    loader: ValLoader,
    device: Device,
    epoch: int,
    run_log: RunLog,
    *,
    world: World = SINGLE_PROCESS,
    before_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate and log the epoch's result."""
    title = f"validation {epoch}"
    evaluation = evaluate(
        score, loader, device=device, title=title, world=world, before_batch=before_batch
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
    warn_of_skipped(loader.skipped, title)
    return evaluation


def _summarise(clips: ClipScores) -> Evaluation:
    """Compute the metrics in the order of the videos, so that the sums do not depend on the number
    of processes."""
    order = np.argsort(clips.videos, kind="stable")
    losses, scores, labels, videos = (column[order] for column in clips)
    _, first_clip, video_of_clip = np.unique(videos, return_index=True, return_inverse=True)
    clips_per_video = np.bincount(video_of_clip)
    video_scores = np.zeros((len(first_clip), scores.shape[1]))
    np.add.at(video_scores, video_of_clip, scores)
    video_scores /= clips_per_video[:, None]
    targets = labels[first_clip]
    return Evaluation(
        loss=float(losses.mean(dtype=np.float64)),
        clip_accuracy=float(topk_hits(scores, labels, 1).mean()),
        video_accuracy=float(topk_hits(video_scores, targets, 1).mean()),
        n_clips=len(labels),
        targets=targets,
        predictions=video_scores.argmax(axis=1),
    )
