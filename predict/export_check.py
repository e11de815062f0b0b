"""Check an exported model against its checkpoint: which clips to compare on, and how fast it runs.

The arithmetic of the comparison itself is in predict.export.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.video_dataset import SampleKey, collate
from engine.scoring import make_scorer
from errors import UserError
from media.ffmpeg import Ffmpeg
from media.sources import find_inputs
from predict.arguments import clips_of
from predict.classifier import Classifier
from predict.export import Parity, Reference, Runner, compare_logits
from predict.video_reader import MODEL_FILTERS, NoVideo, VideoReader
from predict.windows import classifier_windows
from utils.text import join_few

BATCH = 4  # clips; the first clip is run by itself, so that two batch sizes are tried
ROUNDS = 5  # of timing, after one to warm up


class CheckClips(NamedTuple):
    """Clips to compare on, uint8 (N, C, T, H, W), and videos that could not be read."""

    clips: Tensor
    source: str  # where they are from
    skipped: tuple[str, ...] = ()


def clips_of_index(
    classifier: Classifier, index: Path, frames: Path, *, subset: str, n_clips: int
) -> CheckClips:
    """Read the first window of up to `n_clips` videos, evenly spaced in the index."""
    _, loader = clips_of(classifier, index, frames, subset)
    videos = range(0, len(loader.dataset), -(-len(loader.dataset) // n_clips))
    batch = collate([loader.dataset[SampleKey(0, video, (0, 1))] for video in videos])
    if not len(batch.labels):
        raise UserError(f"{index}: none of the {len(videos)} videos tried can be read")
    skipped = tuple(sample.reason for sample in batch.bad)
    return CheckClips(batch.clips, str(index), skipped)


def clips_of_videos(classifier: Classifier, texts: Sequence[str], n_clips: int) -> CheckClips:
    """Decode the first windows of video files, the same number from each."""
    if classifier.options.input_type == "flow":
        raise UserError(f"{classifier.path}: takes optical flow, which --video does not contain")
    inputs = find_inputs(texts)
    n_each = -(-n_clips // len(inputs))
    clips: list[Tensor] = []
    skipped: list[str] = []
    for source in inputs[:n_clips]:
        reader = VideoReader(Ffmpeg(), source, MODEL_FILTERS)
        windows = classifier_windows(classifier, reader, classifier.options.sample_duration)
        try:
            clips += [window.clip for window in islice(windows, n_each)]
        except NoVideo as error:
            skipped.append(f"{source.name}: {error}")
        finally:
            reader.stop()
    if not clips:
        raise UserError(f"--video {join_few(texts)}: no frames could be decoded")
    return CheckClips(torch.stack(clips), join_few(texts), tuple(skipped))


def in_batches(run_batch: Runner, clips: Tensor) -> Tensor:
    """Run one clip by itself, then BATCH at a time: (N, C, T, H, W) -> logits (N, K)."""
    parts = (clips[:1], *clips[1:].split(BATCH))
    return torch.cat([run_batch(part) for part in parts if len(part)])


class Check(NamedTuple):
    """The outcome of comparing one exported file with its checkpoint."""

    parity: Parity
    exported_ms: float  # per clip
    own_ms: float  # the checkpoint in this program
    n_clips_timed: int

    def describe(self, engine: str, source: str) -> list[str]:
        difference, largest, n_agreeing, n_clips = self.parity
        return [
            f"on {n_clips} clips of {source}: largest logit difference {difference:.2g} "
            f"(logits up to {largest:.3g}), same top-1 class for {n_agreeing}",
            f"{engine} {self.exported_ms:.1f} ms per clip, this program {self.own_ms:.1f} ms "
            f"(batches of {self.n_clips_timed}, {torch.get_num_threads()} threads, float32)",
        ]


def check_export(
    run_exported: Runner,
    reference: Reference,
    clips: Tensor,
    expected: Tensor,
    *,
    takes_floats: bool,
) -> Check:
    """Compare an exported model with the checkpoint on uint8 `clips`; `expected` are the logits of
    the checkpoint, (N, K)."""
    inputs = reference.normalized(clips) if takes_floats else clips
    parity = compare_logits(expected, in_batches(run_exported, inputs))
    own = make_scorer(reference.model, reference.device)
    runners, batches = [run_exported, own], [inputs[:BATCH], clips[:BATCH]]
    exported_ms, own_ms = (1000 * s for s in seconds_per_clip(runners, batches))
    return Check(parity, exported_ms, own_ms, len(clips[:BATCH]))


def seconds_per_clip(runners: Sequence[Runner], batches: Sequence[Tensor]) -> list[float]:
    """Time each runner on its batch, in alternation; return the medians."""
    taken: list[list[float]] = [[] for _ in runners]
    for _ in range(ROUNDS + 1):
        for seconds, run_batch, batch in zip(taken, runners, batches, strict=True):
            start = perf_counter()
            run_batch(batch)
            seconds.append((perf_counter() - start) / len(batch))
    return [median(seconds[1:]) for seconds in taken]
