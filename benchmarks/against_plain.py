"""Compare video top-1 of one small network trained from scratch by main.py and by the plain
implementation, over several seeds.

    python -m benchmarks.against_plain FRAMES INDEX [--seeds 1 2 3] [--n_epochs 15]
        [--sample_size 112] [--precision auto]
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import plain
from benchmarks.gpu_check.setting import run_main
from datasets.index import read_index
from evaluation.results import accuracy_of, read_results
from models.build import build
from temporal_transforms import random_window

DEPTH, WIDTH, BATCH, RATE, DECAY = 10, 0.5, 16, 0.01, 1e-3


def drop_after(n_epochs: int) -> int:
    """Return the epoch after which the learning rate is divided by 10."""
    return max(1, n_epochs * 2 // 3)


@dataclass(frozen=True)
class Setting:
    """What both implementations train on and for how long."""

    frames: Path
    index: Path
    n_epochs: int
    side: int  # of the clips, in pixels
    precision: str  # of main.py; the plain implementation computes in fp32


class _TrainClips(plain.PlainVideos):
    """A dataset of one random clip per video."""

    def __getitem__(self, number: int) -> tuple[Tensor, int]:  # type: ignore[override]
        _, folder, n_frames, label = self.videos[number]
        [positions] = random_window(n_frames, Random(), size=16)
        numbers = [1 + position for position in positions]
        return plain.train_clip(folder, numbers, self.side), label


def train_plain(setting: Setting, work: Path, *, seed: int) -> Path:
    """Train and infer in fp32 with gradients of all parameters; return the result file."""
    torch.manual_seed(seed)
    frames, index, n_epochs = setting.frames, setting.index, setting.n_epochs
    videos = _TrainClips(frames, index, subset="training", side=setting.side)
    model = build("resnet", DEPTH, n_classes=len(videos.labels), resnet_widen_factor=WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [drop_after(n_epochs)])
    for _ in range(n_epochs):
        model.train()
        for clips, labels in DataLoader(videos, BATCH, shuffle=True, num_workers=2):
            loss = F.cross_entropy(model(clips), labels)
            model.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    held_out = plain.PlainVideos(frames, index, subset="validation", side=setting.side)
    plain.infer(model, held_out, work / "plain.json")
    return work / "plain.json"


def train_ours(setting: Setting, work: Path, *, seed: int) -> Path:
    n_epochs, index = setting.n_epochs, setting.index.resolve()
    arguments = [
        "--video_path", str(setting.frames.resolve()), "--annotation_path", str(index),
        "--sample_size", str(setting.side), "--precision", setting.precision,
        "--result_path", str(work / str(seed)), "--dataset", "folder",
        "--n_classes", str(len(read_index(index).labels)), "--model_depth", str(DEPTH),
        "--resnet_widen_factor", str(WIDTH), "--batch_size", str(BATCH),
        "--learning_rate", str(RATE), "--weight_decay", str(DECAY),
        "--multistep_milestones", str(drop_after(n_epochs)), "--n_epochs", str(n_epochs),
        "--manual_seed", str(seed), "--no_val", "--inference", "--n_threads", "2",
    ]  # fmt: skip
    run_main(arguments)
    return work / str(seed) / "val.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.against_plain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("frames", type=Path, help="folder with a folder of frame folders per class")
    parser.add_argument("index", type=Path, help="written by folder_json or ucf101_json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--n_epochs", type=int, default=15)
    parser.add_argument(
        "--sample_size", type=int, default=112, help="height and width of the clips, pixels"
    )
    parser.add_argument("--precision", default="auto", help="of main.py, as its flag of this name")
    options = parser.parse_args(argv)
    index = read_index(options.index)
    setting = Setting(
        options.frames, options.index, options.n_epochs, options.sample_size, options.precision
    )
    found: list[list[float]] = []
    with tempfile.TemporaryDirectory() as work:
        for seed in options.seeds:
            paths = [train(setting, Path(work), seed=seed) for train in (train_ours, train_plain)]
            results = (read_results(path) for path in paths)
            found.append([accuracy_of(index, result, "val").top[1] for result in results])
            print(f"seed {seed}: ours {found[-1][0]:.4f}, plain {found[-1][1]:.4f}", flush=True)
    means = [statistics.mean(column) for column in zip(*found, strict=True)]
    print(f"mean: ours {means[0]:.4f}, plain {means[1]:.4f}")
    if len(found) > 1:
        spread = statistics.stdev(ours - theirs for ours, theirs in found) / len(found) ** 0.5
        print(f"difference {means[0] - means[1]:+.4f}, standard error {spread:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
