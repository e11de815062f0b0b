"""R(2+1)D (Tran et al., arXiv:1711.11248): each 3D convolution as one in space and one in time.

The channels between the two are chosen so that the pair has as many weights as the 3D convolution.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.catalog import Layout, mid_planes
from models.resnet import Block, ResNet, Shortcut, Stem, conv1x1x1, widened


def spatial_conv(in_planes: int, planes: int, stride: int = 1, *, side: int = 3) -> nn.Conv3d:
    strides, padding = (1, stride, stride), (0, side // 2, side // 2)
    return nn.Conv3d(in_planes, planes, (1, side, side), strides, padding, bias=False)


def temporal_conv(in_planes: int, planes: int, stride: int = 1, *, t_size: int = 3) -> nn.Conv3d:
    strides, padding = (stride, 1, 1), (t_size // 2, 0, 0)
    return nn.Conv3d(in_planes, planes, (t_size, 1, 1), strides, padding, bias=False)


class BasicBlock2p1d(Block):
    folds = (
        ("conv1_s", "bn1_s"),
        ("conv1_t", "bn1_t"),
        ("conv2_s", "bn2_s"),
        ("conv2_t", "bn2_t"),
    )

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int,
        shortcut: Shortcut,
        *,
        shared_mid: bool = False,
    ) -> None:
        """With `shared_mid`, both pairs have the channels between them that suit the first."""
        super().__init__()
        mid1 = mid_planes(in_planes, planes, 3, 3)
        mid2 = mid1 if shared_mid else mid_planes(planes, planes, 3, 3)
        self.conv1_s = spatial_conv(in_planes, mid1, stride)
        self.bn1_s = nn.BatchNorm3d(mid1)
        self.conv1_t = temporal_conv(mid1, planes, stride)
        self.bn1_t = nn.BatchNorm3d(planes)
        self.conv2_s = spatial_conv(planes, mid2)
        self.bn2_s = nn.BatchNorm3d(mid2)
        self.conv2_t = temporal_conv(mid2, planes)
        self.bn2_t = nn.BatchNorm3d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1_s(self.conv1_s(x)))
        out = self.relu(self.bn1_t(self.conv1_t(out)))
        out = self.relu(self.bn2_s(self.conv2_s(out)))
        out = self.bn2_t(self.conv2_t(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck2p1d(Block):
    expansion: ClassVar[int] = 4
    folds = (
        ("conv1", "bn1"),
        ("conv2_s", "bn2_s"),
        ("conv2_t", "bn2_t"),
        ("conv3", "bn3"),
    )

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int,
        shortcut: Shortcut,
        *,
        shared_mid: bool = False,
    ) -> None:
        """With `shared_mid`, the channels inside the pair follow from the input of the block."""
        super().__init__()
        mid = mid_planes(in_planes if shared_mid else planes, planes, 3, 3)
        self.conv1 = conv1x1x1(in_planes, planes)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2_s = spatial_conv(planes, mid, stride)
        self.bn2_s = nn.BatchNorm3d(mid)
        self.conv2_t = temporal_conv(mid, planes, stride)
        self.bn2_t = nn.BatchNorm3d(planes)
        self.conv3 = conv1x1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm3d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2_s(self.conv2_s(out)))
        out = self.relu(self.bn2_t(self.conv2_t(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet2p1d(ResNet):
    folds = (("conv1_s", "bn1_s"), ("conv1_t", "bn1_t"))

    def build_stem(self, stem: Stem, planes: int) -> None:
        # Of 3 input channels, as in the original.
        mid = stem.mid_planes or mid_planes(3, planes, stem.t_size, 7)
        self.conv1_s = spatial_conv(stem.n_input_channels, mid, 2, side=7)
        self.bn1_s = nn.BatchNorm3d(mid)
        self.conv1_t = temporal_conv(mid, planes, stem.t_stride, t_size=stem.t_size)
        self.bn1_t = nn.BatchNorm3d(planes)

    def run_stem(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1_s(self.conv1_s(x)))
        return self.relu(self.bn1_t(self.conv1_t(x)))


def build(
    layout: Layout,
    *,
    n_classes: int,
    stem: Stem,
    dropout: float = 0.0,
    resnet_shortcut: str = "B",
    resnet_widen_factor: float = 1.0,
    shared_mid_planes: bool = False,
) -> ResNet2p1d:
    return ResNet2p1d(
        Bottleneck2p1d if layout.bottleneck else BasicBlock2p1d,
        layout.n_blocks,
        n_classes=n_classes,
        stem=stem,
        dropout=dropout,
        widths=widened(resnet_widen_factor),
        shortcut=resnet_shortcut,
        block_options={"shared_mid": shared_mid_planes},
    )
