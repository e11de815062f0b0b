"""The original's way of working, written plainly: what `make bench` compares with."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as P

from spatial_transforms import MEAN, STD


def model_input(clips: Tensor) -> Tensor:
    """uint8 (B, 3, T, H, W) -> normalised float32, contiguous."""
    mean = torch.tensor(MEAN["kinetics"]).view(-1, 1, 1, 1)
    std = torch.tensor(STD["kinetics"]).view(-1, 1, 1, 1)
    return (clips.float() / 255 - mean) / std


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, labels: Tensor
) -> float:
    """fp32, gradients of every parameter, whatever the optimiser holds."""
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
    """A random crop, resized and flipped frame by frame, to normalised float32 (C, T, H, W)."""
    frames = load_clip(folder, numbers)
    box = RandomResizedCrop.get_params(frames[0], scale=[0.25, 1.0], ratio=[0.75, 1 / 0.75])
    flip = random.random() < 0.5
    clip = []
    for frame in frames:
        frame = P.resized_crop(frame, *box, [size, size])
        clip.append(_normalised(P.hflip(frame) if flip else frame))
    return torch.stack(clip).permute(1, 0, 2, 3)


def eval_clip(folder: Path, numbers: list[int], size: int = 112) -> Tensor:
    """The centre square, frame by frame, to normalised float32 (C, T, H, W)."""
    frames = load_clip(folder, numbers)
    clip = [_normalised(P.center_crop(P.resize(frame, size), [size])) for frame in frames]
    return torch.stack(clip).permute(1, 0, 2, 3)


def _normalised(frame: Image.Image) -> Tensor:
    return P.normalize(P.to_tensor(frame), MEAN["kinetics"], STD["kinetics"])
