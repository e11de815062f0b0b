"""The original's way of working, written plainly: what `make bench` compares with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
