"""Windows of videos -> scores per video."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from tqdm import tqdm

from datasets.video_dataset import ClipLoader
from errors import UserError
from results import ranked
from runtime.device import Device


class WindowScores(NamedTuple):
    """One window's softmax over all outputs, (K,), and its place in the video."""

    video: int
    segment: tuple[int, int]  # first frame number, last + 1
    scores: np.ndarray


def score_windows(
    model: nn.Module, loader: ClipLoader, *, device: Device
) -> Iterator[WindowScores]:
    """Run the model over every window, in the loader's order."""
    score = device.scorer(model)
    for batch in tqdm(loader, desc="inference", leave=False, disable=None):
        logits = score(batch.clips)  # (B, C, T, H, W) -> (B, K)
        scores = logits.softmax(dim=1).cpu().numpy()
        for video, segment, row in zip(batch.videos.tolist(), batch.segments, scores, strict=True):
            yield WindowScores(video, segment, row)


def infer(
    model: nn.Module,
    loader: ClipLoader,
    *,
    device: Device,
    labels: Sequence[str],
    topk: int,
    average: bool = True,
) -> dict[str, list[dict[str, Any]]]:
    """Score whole videos: {video id: entries as results.write_results takes them}.

    With `average` a video's scores are the mean of its windows', else every window gets an entry.
    Windows of one video come one after the other, so that a video is done before the next starts.
    Raises UserError if no video could be read.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    windows = score_windows(model, loader, device=device)
    for video, group in groupby(windows, key=lambda scored: scored.video):
        if average:
            total, count = np.zeros(()), 0
            for scored in group:
                total, count = total + scored.scores.astype(np.float64), count + 1
            entries = ranked(total / count, labels, topk)
        else:
            entries = [
                {"segment": list(scored.segment), "result": ranked(scored.scores, labels, topk)}
                for scored in group
            ]
        results[loader.video_id(video)] = entries
    if not results:
        raise UserError("inference: every video was left out as unreadable")
    return results
