"""Fine-tune the head of an R3D-50 for 50 epochs with 4 cached views per clip: the whole program.

The plain implementation runs part of one epoch, and its time is extrapolated to 50, because every
video and every epoch costs the same.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from benchmarks import plain
from benchmarks.frames import frame_folders, index_of
from benchmarks.fresh_process import in_fresh_process
from benchmarks.gpu_check.setting import run_main
from benchmarks.timing import Comparison
from models.build import build
from temporal_transforms import even_windows

DEPTH, EPOCHS, VIEWS, BATCH = 50, 50, 4, 32
MOST_VIDEOS = 64  # per subset, for the plain implementation


def comparisons() -> Iterator[Comparison]:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        frames = frame_folders(work)
        index = index_of(frames, work)
        model = build("resnet", DEPTH, n_classes=700)
        content = {"epoch": 1, "arch": f"resnet-{DEPTH}", "state_dict": model.state_dict()}
        torch.save(content, work / "pre.pth")
        ours = _ours(frames, index, work)
        with in_fresh_process(partial, _plain_epoch, frames, index) as epoch:
            theirs = EPOCHS * epoch()
        text = f"fine-tuning of the head, R3D-{DEPTH}, {EPOCHS} epochs, {VIEWS} cached views"
        yield Comparison(text, "runs/hour", 3600 / ours, 3600 / theirs, theirs / ours)


def _ours(frames: Path, index: Path, work: Path) -> float:
    arguments = [
        "--video_path", str(frames), "--annotation_path", str(index),
        "--result_path", str(work / "res"), "--dataset", "folder", "--n_classes", "2",
        "--pretrain_path", str(work / "pre.pth"), "--ft_begin_module", "fc", "--freeze_bn",
        "--cache_features", str(VIEWS), "--n_epochs", str(EPOCHS), "--batch_size", str(BATCH),
        "--no_cuda", "--n_threads", "2", "--learning_rate", "0.01",
    ]  # fmt: skip
    started = time.perf_counter()
    run_main(arguments)
    return time.perf_counter() - started


class _TrainClips(plain.PlainVideos):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:  # type: ignore[override]
        _, folder, n_frames, label = self.videos[number]
        [positions] = even_windows(n_frames, size=16, n_samples=1)
        return plain.train_clip(folder, [1 + p for p in positions]), label


class _ValClips(plain.PlainVideos):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:  # type: ignore[override]
        _, folder, n_frames, label = self.videos[number]
        windows = even_windows(n_frames, size=16, n_samples=3)
        return torch.stack([plain.eval_clip(folder, [1 + p for p in w]) for w in windows]), label


def _plain_epoch(frames: Path, index: Path) -> float:
    """Return the seconds of an epoch of training and validation, extrapolated from a part."""
    model = build("resnet", DEPTH, n_classes=2)
    optimizer = torch.optim.SGD(model.get_submodule("fc").parameters(), lr=0.01, momentum=0.9)
    workers = os.cpu_count() or 1
    train = _TrainClips(frames, index, subset="training")
    val = _ValClips(frames, index, subset="validation")
    train_part, val_part = _part_of(train), _part_of(val)
    started = time.perf_counter()
    model.train()
    for clips, labels in DataLoader(train_part, BATCH, shuffle=True, num_workers=workers):
        loss = torch.nn.functional.cross_entropy(model(clips), labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()
    trained = time.perf_counter()
    model.eval()
    with torch.no_grad():
        for clips, _ in DataLoader(val_part, None, num_workers=workers):
            model(clips)
    seconds = (trained - started) * len(train) / len(train_part)
    return seconds + (time.perf_counter() - trained) * len(val) / len(val_part)


def _part_of(videos: plain.PlainVideos) -> Subset:
    """Return at most MOST_VIDEOS of them, evenly spaced."""
    return Subset(videos, range(0, len(videos), -(-len(videos) // MOST_VIDEOS)))
