"""Windows of videos -> scores per video."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from datasets.video_dataset import ClipLoader, WindowBatches, in_batches_of
from engine.device import Device
from engine.distributed import SINGLE_PROCESS, World
from engine.prefetch import copied, fetched, paced
from engine.scoring import Scorer, make_scorer
from errors import UserError
from evaluation.results import ranked
from utils.progress_bar import Bar

# Of one forward pass: bounds its memory. An R3D-50 on a CPU scores as many clips per second 8 at a
# time as 32, in 0.4 GiB less, and the memory it keeps does not grow.
WINDOWS = {"cpu": 8, "cuda": 128}

Windows = tuple[list[int], list[tuple[int, int]]]  # their videos and segments


class WindowValues(NamedTuple):
    """What one window gave, (K,), and its place in the video."""

    video: int
    segment: tuple[int, int]  # first frame number, last + 1
    values: np.ndarray


def over_windows(
    compute: Scorer,
    loader: ClipLoader[WindowBatches],
    *,
    device: Device,
    after_batch: Callable[[], None] | None = None,
    is_silent: bool = False,
    task: str = "inference",
) -> Iterator[WindowValues]:
    """What `compute` makes of every window, in the loader's order; WINDOWS at a time, whatever
    videos they are from, where the loader allows it. Raises UserError on values like NaN."""
    bar = Bar(task, loader.batches.n_windows, "clip", is_silent=is_silent)

    def computed() -> Iterator[tuple[Windows, Tensor]]:
        batches = copied(loader, device.device)
        if loader.batches.may_mix:
            batches = in_batches_of(WINDOWS[device.device.type], batches)
        for batch in paced(batches, device.device):
            if not len(batch.labels):
                continue
            rows = compute(batch.clips)  # (B, C, T, H, W) -> (B, K)
            yield (batch.videos.tolist(), batch.segments), rows
            bar.update(len(batch.labels))
            if after_batch is not None:
                after_batch()

    with bar:
        for (videos, segments), rows in fetched(computed(), device.device):
            for video, segment, row in zip(videos, segments, rows.numpy(), strict=True):
                check_finite(row, loader.video_id(video))
                yield WindowValues(video, segment, row)


def check_finite(values: np.ndarray, video: str) -> None:
    """Raises UserError that names the video where a model gave NaN or infinity for it."""
    if not np.isfinite(values).all():
        raise UserError(
            f"{video}: the model gives NaN or infinity: its training has diverged, or its numbers "
            "are too large for --precision fp16; try fp32"
        )


def by_video(windows: Iterable[WindowValues]) -> Iterator[WindowValues]:
    """The mean of each video's windows, float64 (K,), over all that they cover of it."""
    for video, group in groupby(windows, key=lambda window: window.video):
        total, segments = np.zeros(()), []
        for window in group:
            total = total + window.values.astype(np.float64)
            segments.append(window.segment)
        covered = segments[0][0], segments[-1][1]
        yield WindowValues(video, covered, total / len(segments))


def infer(
    model: nn.Module,
    loader: ClipLoader[WindowBatches],
    *,
    device: Device,
    labels: Sequence[str],
    topk: int,
    average: bool = True,
    world: World = SINGLE_PROCESS,
    after_batch: Callable[[], None] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Score whole videos: {video id: entries as results.write_results takes them}.

    With `average` a video's scores are the mean of its windows', else every window gets an entry.
    Of several processes each scores its videos, and all get all results, in the index's order.
    Windows of one video come one after the other, so that a video is done before the next starts.
    Raises UserError if no video could be read.
    """
    results: dict[int, list[dict[str, Any]]] = {}
    logits = make_scorer(model, device)
    windows = over_windows(
        lambda clips: logits(clips).softmax(dim=1),
        loader,
        device=device,
        after_batch=after_batch,
        is_silent=not world.is_first,
    )
    if average:
        for mean in by_video(windows):
            results[mean.video] = ranked(mean.values, labels, topk)
    else:
        for window in windows:
            entry = {
                "segment": list(window.segment),
                "result": ranked(window.values, labels, topk),
            }
            results.setdefault(window.video, []).append(entry)
    for others in world.gather(results):
        results |= others
    if not results:
        raise UserError("inference: every video was left out as unreadable")
    return {loader.video_id(video): results[video] for video in sorted(results)}
