"""Windows of videos -> scores per video."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from tqdm import tqdm

from datasets.video_dataset import ClipLoader
from errors import UserError
from results import ranked
from runtime.device import Device
from runtime.distributed import ALONE, World


class WindowScores(NamedTuple):
    """One window's softmax over all outputs, (K,), and its place in the video."""

    video: int
    segment: tuple[int, int]  # first frame number, last + 1
    scores: np.ndarray


def score_windows(
    model: nn.Module,
    loader: ClipLoader,
    *,
    device: Device,
    on_batch: Callable[[], None] | None = None,
    is_silent: bool = False,
) -> Iterator[WindowScores]:
    """Run the model over every window, in the loader's order."""
    score = device.scorer(model)
    hidden = True if is_silent else None
    for batch in tqdm(loader, desc="inference", leave=False, disable=hidden):
        if not len(batch.labels):
            continue
        logits = score(batch.clips)  # (B, C, T, H, W) -> (B, K)
        scores = logits.softmax(dim=1).cpu().numpy()
        for video, segment, row in zip(batch.videos.tolist(), batch.segments, scores, strict=True):
            yield WindowScores(video, segment, row)
        if on_batch is not None:
            on_batch()


def infer(
    model: nn.Module,
    loader: ClipLoader,
    *,
    device: Device,
    labels: Sequence[str],
    topk: int,
    average: bool = True,
    world: World = ALONE,
    on_batch: Callable[[], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Score whole videos: {video id: entries as results.write_results takes them}.

    With `average` a video's scores are the mean of its windows', else every window gets an entry.
    Of several processes each scores its videos, and all get all results, in the index's order.
    Windows of one video come one after the other, so that a video is done before the next starts.
    Raises UserError if no video could be read.
    """
    results: dict[int, list[dict[str, Any]]] = {}
    windows = score_windows(
        model, loader, device=device, on_batch=on_batch, is_silent=not world.is_first
    )
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
        results[video] = entries
    for others in world.gather(results):
        results |= others
    if not results:
        raise UserError("inference: every video was left out as unreadable")
    return {loader.video_id(video): results[video] for video in sorted(results)}
