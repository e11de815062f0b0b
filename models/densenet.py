"""DenseNet (Huang et al., arXiv:1608.06993): each layer sees the outputs of all before it."""

from collections import OrderedDict
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.catalog import Layout
from models.resnet import Folds, Stem, conv1x1x1, conv3x3x3, initialise, stem_conv

N_STEM_PLANES = 64
GROWTH = 32  # channels added by each layer
BOTTLENECK = 4  # channels of a layer's 1x1x1 convolution, in units of GROWTH


class DenseLayer(nn.Module):
    folds: ClassVar[Folds] = (("conv1", "norm2"),)

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(in_planes)
        self.conv1 = conv1x1x1(in_planes, BOTTLENECK * GROWTH)
        self.norm2 = nn.BatchNorm3d(BOTTLENECK * GROWTH)
        self.conv2 = conv3x3x3(BOTTLENECK * GROWTH, GROWTH)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat([x, new], dim=1)


class Transition(nn.Module):
    """Halve the channels, time, height and width."""

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(in_planes)
        self.conv = conv1x1x1(in_planes, in_planes // 2)
        self.pool = nn.AvgPool3d(2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(F.relu(self.norm(x))))


class DenseNet(nn.Module):
    def __init__(
        self, n_layers: tuple[int, ...], *, n_classes: int, stem: Stem, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = _stem(stem)
        planes = N_STEM_PLANES
        for number, n in enumerate(n_layers, start=1):
            layers = [(f"denselayer{i + 1}", DenseLayer(planes + i * GROWTH)) for i in range(n)]
            self.features.add_module(f"denseblock{number}", nn.Sequential(OrderedDict(layers)))
            planes += n * GROWTH
            if number < len(n_layers):
                self.features.add_module(f"transition{number}", Transition(planes))
                planes //= 2
        self.features.add_module("norm5", nn.BatchNorm3d(planes))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(planes, n_classes)
        initialise(self)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, K)."""
        x = F.relu(self.features(clips))
        return self.classifier(self.dropout(F.adaptive_avg_pool3d(x, 1).flatten(1)))


def _stem(stem: Stem) -> nn.Sequential:
    parts: list[tuple[str, nn.Module]] = [
        ("conv1", stem_conv(stem, N_STEM_PLANES)),
        ("norm1", nn.BatchNorm3d(N_STEM_PLANES)),
        ("relu1", nn.ReLU(inplace=True)),
    ]
    if stem.max_pool:
        parts.append(("pool1", nn.MaxPool3d(3, stride=2, padding=1)))
    return nn.Sequential(OrderedDict(parts))


def build(layout: Layout, *, n_classes: int, stem: Stem, dropout: float = 0.0) -> DenseNet:
    return DenseNet(layout.n_blocks, n_classes=n_classes, stem=stem, dropout=dropout)
