"""One pass over validation clips: loss, clip accuracy and video accuracy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from datasets.video_dataset import ClipLoader
from errors import UserError
from metrics import topk_hits
from runtime.device import Device


class Evaluation(NamedTuple):
    """What one pass found. A video's scores are the mean softmax of its clips."""

    loss: float  # mean cross entropy of the clips
    clip_accuracy: float
    video_accuracy: float
    n_clips: int
    n_videos: int


def evaluate(
    model: nn.Module,
    loader: ClipLoader,
    *,
    device: Device,
    title: str,
    on_batch: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate a copy of a model as it is now. Raises UserError if no clip is left.

    `on_batch` is called before each batch and may end the pass by raising.
    """
    score = device.scorer(model)
    losses: list[float] = []
    scores: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    videos: list[np.ndarray] = []
    bar = tqdm(loader, desc=title, leave=False, disable=None)
    for batch in bar:
        if on_batch is not None:
            on_batch()
        logits = score(batch.clips)  # (B, C, T, H, W) -> (B, K)
        targets = batch.labels.to(device.device)
        losses.append(F.cross_entropy(logits, targets, reduction="sum").item())
        scores.append(logits.softmax(dim=1).cpu().numpy())
        labels.append(batch.labels.numpy())
        videos.append(batch.videos.numpy())
    if not scores:
        raise UserError("validation: every sample was left out as unreadable")
    return _summarise(
        sum(losses), np.concatenate(scores), np.concatenate(labels), np.concatenate(videos)
    )


def _summarise(
    loss_sum: float, scores: np.ndarray, labels: np.ndarray, videos: np.ndarray
) -> Evaluation:
    """scores (N, K), labels (N,) and videos (N,) of all clips -> the numbers."""
    _, first_clip, video_of_clip = np.unique(videos, return_index=True, return_inverse=True)
    clips_per_video = np.bincount(video_of_clip)
    video_scores = np.zeros((len(first_clip), scores.shape[1]))
    np.add.at(video_scores, video_of_clip, scores)
    video_scores /= clips_per_video[:, None]
    return Evaluation(
        loss=loss_sum / len(labels),
        clip_accuracy=float(topk_hits(scores, labels, 1).mean()),
        video_accuracy=float(topk_hits(video_scores, labels[first_clip], 1).mean()),
        n_clips=len(labels),
        n_videos=len(first_clip),
    )
