"""Score whole videos by sliding windows, or by evenly spaced clips in several views."""

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

# Windows per forward pass, which bounds the memory. On a CPU, an R3D-50 scores as many clips per
# second in batches of 8 as of 32, with 0.4 GiB less.
WINDOWS = {"cpu": 8, "cuda": 128}

Windows = tuple[list[int], list[tuple[int, int]]]  # for each window: its video, its segment


class WindowValues(NamedTuple):
    """The output for one view of a window, (K,), and the place of the window in the video."""

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
    """Yield the output of `compute` for every view of every window, in the loader's order.

    Where the loader allows it, batches of WINDOWS mix windows of several videos. Raises UserError
    on NaN or infinity.
    """
    bar = Bar(task, loader.batches.n_clips, "clip", is_silent=is_silent)

    def computed() -> Iterator[tuple[Windows, Tensor]]:
        batches = copied(loader, device.torch_device)
        if loader.batches.may_mix:
            batches = in_batches_of(WINDOWS[device.torch_device.type], batches)
        for batch in paced(batches, device.torch_device):
            if not len(batch.labels):
                continue
            rows = compute(batch.clips)  # (B, C, T, H, W) -> (B, K)
            yield (batch.videos.tolist(), batch.segments), rows
            bar.update(len(batch.labels))
            if after_batch is not None:
                after_batch()

    with bar:
        for (videos, segments), rows in fetched(computed(), device.torch_device):
            for video, segment, row in zip(videos, segments, rows.numpy(), strict=True):
                check_finite(row, loader.video_id(video))
                yield WindowValues(video, segment, row)


def check_finite(values: np.ndarray, video: str) -> None:
    """Raise a UserError that names the video if the model outputs NaN or infinity for it."""
    if not np.isfinite(values).all():
        raise UserError(
            f"{video}: the model outputs NaN or infinity: its training has diverged, or its values "
            "are too large for --precision fp16; try --precision fp32"
        )


def by_video(windows: Iterable[WindowValues]) -> Iterator[WindowValues]:
    """Average each video's windows, which must be adjacent, in float64, (K,); the segment spans
    them."""
    return _averaged(windows, lambda window: window.video)


def by_window(views: Iterable[WindowValues]) -> Iterator[WindowValues]:
    """Average the views of each window in float64, (K,)."""
    return _averaged(views, lambda view: (view.video, view.segment))


def _averaged(
    windows: Iterable[WindowValues], key: Callable[[WindowValues], Any]
) -> Iterator[WindowValues]:
    """Average consecutive windows of the same key."""
    for _, group in groupby(windows, key=key):
        total, segments = np.zeros(()), []
        for window in group:
            total = total + window.values.astype(np.float64)
            segments.append(window.segment)
        covered = segments[0][0], segments[-1][1]
        yield WindowValues(window.video, covered, total / len(segments))


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
    """Score whole videos; return {video id: entries for evaluation.results.write_results}.

    With `average` a video's scores are the mean over all views of its windows, otherwise every
    window gets an entry. Each process scores its share of the videos, and every process returns all
    results, in index order. Raises UserError if no video could be read.
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
        for window in by_window(windows):
            entry = {
                "segment": list(window.segment),
                "result": ranked(window.values, labels, topk),
            }
            results.setdefault(window.video, []).append(entry)
    for others in world.gather(results):
        results |= others
    if not results:
        raise UserError("inference: none of the videos could be read")
    return {loader.video_id(video): results[video] for video in sorted(results)}
