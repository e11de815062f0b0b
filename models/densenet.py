"""DenseNet (Huang et al., arXiv:1608.06993): every layer sees the output of all before it."""

from collections import OrderedDict
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Conv3d, MaxPool3d
from models.resnet import Folds, Stem, conv1x1x1, conv3x3x3, initialise

LAYERS = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}
N_STEM_PLANES = 64
GROWTH = 32  # channels that each layer adds
BOTTLENECK = 4  # the layer's 1x1x1 convolution has that many times GROWTH channels


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
    """Halves the channels and every side."""

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(in_planes)
        self.conv = conv1x1x1(in_planes, in_planes // 2)
        self.pool = nn.AvgPool3d(2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(F.relu(self.norm(x))))


class DenseNet(nn.Module):
    def __init__(self, layers: tuple[int, ...], *, n_classes: int, stem: Stem) -> None:
        super().__init__()
        self.features = _stem(stem)
        planes = N_STEM_PLANES
        for number, n_layers in enumerate(layers, start=1):
            block = nn.Sequential(
                OrderedDict(
                    (f"denselayer{i + 1}", DenseLayer(planes + i * GROWTH)) for i in range(n_layers)
                )
            )
            self.features.add_module(f"denseblock{number}", block)
            planes += n_layers * GROWTH
            if number < len(layers):
                self.features.add_module(f"transition{number}", Transition(planes))
                planes //= 2
        self.features.add_module("norm5", nn.BatchNorm3d(planes))
        self.classifier = nn.Linear(planes, n_classes)
        initialise(self)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, K)."""
        x = F.relu(self.features(clips))
        return self.classifier(F.adaptive_avg_pool3d(x, 1).flatten(1))


def _stem(stem: Stem) -> nn.Sequential:
    conv = Conv3d(
        stem.n_input_channels,
        N_STEM_PLANES,
        (stem.t_size, 7, 7),
        stride=(stem.t_stride, 2, 2),
        padding=(stem.t_size // 2, 3, 3),
    )
    parts: list[tuple[str, nn.Module]] = [
        ("conv1", conv),
        ("norm1", nn.BatchNorm3d(N_STEM_PLANES)),
        ("relu1", nn.ReLU(inplace=True)),
    ]
    if stem.max_pool:
        parts.append(("pool1", MaxPool3d(3, stride=2, padding=1)))
    return nn.Sequential(OrderedDict(parts))


def build_densenet(depth: int, *, n_classes: int, stem: Stem) -> DenseNet:
    return DenseNet(LAYERS[depth], n_classes=n_classes, stem=stem)
