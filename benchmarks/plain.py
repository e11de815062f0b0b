"""A plain implementation of how the original works, the baseline of `make bench`."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as P

from spatial_transforms import MEAN, STD
from temporal_transforms import sliding_starts, window


def model_input(clips: Tensor) -> Tensor:
    """uint8 (B, 3, T, H, W) -> normalised float32, contiguous."""
    mean = torch.tensor(MEAN["kinetics"], device=clips.device).view(-1, 1, 1, 1)
    std = torch.tensor(STD["kinetics"], device=clips.device).view(-1, 1, 1, 1)
    return (clips.float() / 255 - mean) / std


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, labels: Tensor
) -> float:
    """Train in fp32 with gradients of all parameters, also of those the optimiser does not have."""
    loss = F.cross_entropy(model(model_input(clips)), labels)
    model.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


def load_clip(folder: Path, numbers: list[int]) -> list[Image.Image]:
    frames = []
    for number in numbers:
        with (folder / f"image_{number:05d}.jpg").open("rb") as file, Image.open(file) as image:
            frames.append(image.convert("RGB"))
    return frames


def train_clip(folder: Path, numbers: list[int], size: int = 112) -> Tensor:
    """Crop, resize and flip randomly, frame by frame -> normalised float32 (C, T, H, W)."""
    frames = load_clip(folder, numbers)
    box = RandomResizedCrop.get_params(frames[0], scale=[0.25, 1.0], ratio=[0.75, 1 / 0.75])
    flip = random.random() < 0.5
    clip = []
    for frame in frames:
        frame = P.resized_crop(frame, *box, [size, size])
        clip.append(_normalised(P.hflip(frame) if flip else frame))
    return torch.stack(clip).permute(1, 0, 2, 3)


def eval_clip(folder: Path, numbers: list[int], size: int = 112) -> Tensor:
    """Resize and take the centre square, frame by frame -> normalised float32 (C, T, H, W)."""
    frames = load_clip(folder, numbers)
    clip = [_normalised(P.center_crop(P.resize(frame, size), [size])) for frame in frames]
    return torch.stack(clip).permute(1, 0, 2, 3)


def _normalised(frame: Image.Image) -> Tensor:
    return P.normalize(P.to_tensor(frame), MEAN["kinetics"], STD["kinetics"])


class PlainVideos(torch.utils.data.Dataset):
    """A dataset whose items are all windows of a video."""

    def __init__(self, frames_dir: Path, index: Path, *, subset: str, side: int = 112) -> None:
        content = json.loads(index.read_text(encoding="utf-8"))
        self.labels = content["labels"]
        self.videos = []
        for name, entry in content["database"].items():
            if entry["subset"] == subset:
                label = entry["annotations"]["label"]
                folder = frames_dir / entry.get("video_path", f"{label}/{name}")
                end = entry["annotations"]["segment"][1]
                self.videos.append((name, folder, end - 1, self.labels.index(label)))
        self.side = side

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, number: int) -> tuple[str, Tensor, int]:
        name, folder, n_frames, label = self.videos[number]
        windows = sliding_starts(n_frames, 16, 16)
        numbers = [[1 + i for i in window(n_frames, 16, start)] for start in windows]
        return name, torch.stack([eval_clip(folder, clip, self.side) for clip in numbers]), label


def infer(model: nn.Module, videos: PlainVideos, path: Path) -> int:
    """Infer one video at a time, without folding, write the result file and return the number of
    windows."""
    model.eval()
    loader = torch.utils.data.DataLoader(videos, batch_size=None, num_workers=2)
    results: dict[str, Any] = {}
    n_windows = 0
    with torch.no_grad():
        for name, clips, _ in loader:
            scores = model(clips).softmax(dim=1).mean(dim=0)
            top = scores.topk(min(5, len(videos.labels)))
            pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
            results[name] = [{"label": videos.labels[i], "score": score} for i, score in pairs]
            n_windows += len(clips)
    path.write_text(json.dumps({"results": results}, allow_nan=False), encoding="utf-8")
    return n_windows
