"""Pre-activation ResNet (He et al., arXiv:1603.05027): batch norm and ReLU before each convolution.

As in the original, there is no batch norm between the last block and the pooling.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.catalog import Layout
from models.resnet import Block, ResNet, Shortcut, Stem, conv1x1x1, conv3x3x3


class PreBasicBlock(Block):
    folds = (("conv1", "bn2"),)

    def __init__(self, in_planes: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(in_planes)
        self.conv1 = conv3x3x3(in_planes, planes, stride)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv2 = conv3x3x3(planes, planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        return out + (x if self.downsample is None else self.downsample(x))


class PreBottleneck(Block):
    expansion: ClassVar[int] = 4
    folds = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, in_planes: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm3d(in_planes)
        self.conv1 = conv1x1x1(in_planes, planes)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv2 = conv3x3x3(planes, planes, stride)
        self.bn3 = nn.BatchNorm3d(planes)
        self.conv3 = conv1x1x1(planes, planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        return out + (x if self.downsample is None else self.downsample(x))


def build(
    layout: Layout,
    *,
    n_classes: int,
    stem: Stem,
    dropout: float = 0.0,
    resnet_shortcut: str = "B",
) -> ResNet:
    return ResNet(
        PreBottleneck if layout.bottleneck else PreBasicBlock,
        layout.n_blocks,
        n_classes=n_classes,
        stem=stem,
        dropout=dropout,
        shortcut=resnet_shortcut,
    )
