"""R(2+1)D (Tran et al., arXiv:1711.11248): each 3D convolution as one in space and one in time.

The channels between the two are chosen so that the pair has as many weights as the 3D convolution.
"""

from typing import ClassVar

from torch import Tensor, nn

from models.layers import Conv3d
from models.resnet import BASIC_DEPTHS, BLOCKS, Block, ResNet, Stem, conv1x1x1, widened


def mid_planes(in_planes: int, planes: int, t_size: int, side: int) -> int:
    """Channels between a `side` x `side` convolution in space and one of `t_size` in time."""
    in_3d = in_planes * planes * t_size * side * side
    return in_3d // (in_planes * side * side + t_size * planes)


def spatial_conv(in_planes: int, planes: int, stride: int = 1) -> Conv3d:
    return Conv3d(in_planes, planes, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1))


def temporal_conv(in_planes: int, planes: int, stride: int = 1) -> Conv3d:
    return Conv3d(in_planes, planes, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0))


class BasicBlock2p1d(Block):
    folds = (
        ("conv1_s", "bn1_s"),
        ("conv1_t", "bn1_t"),
        ("conv2_s", "bn2_s"),
        ("conv2_t", "bn2_t"),
    )

    def __init__(
        self, in_planes: int, planes: int, stride: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__(in_planes, planes, stride, shortcut)
        mid1, mid2 = mid_planes(in_planes, planes, 3, 3), mid_planes(planes, planes, 3, 3)
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
        self, in_planes: int, planes: int, stride: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__(in_planes, planes, stride, shortcut)
        mid = mid_planes(planes, planes, 3, 3)
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
        # The original counts three input channels whatever there are.
        mid = mid_planes(3, planes, stem.t_size, 7)
        self.conv1_s = Conv3d(
            stem.n_input_channels, mid, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3)
        )
        self.bn1_s = nn.BatchNorm3d(mid)
        self.conv1_t = Conv3d(
            mid,
            planes,
            (stem.t_size, 1, 1),
            stride=(stem.t_stride, 1, 1),
            padding=(stem.t_size // 2, 0, 0),
        )
        self.bn1_t = nn.BatchNorm3d(planes)

    def run_stem(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1_s(self.conv1_s(x)))
        return self.relu(self.bn1_t(self.conv1_t(x)))


def build_resnet2p1d(
    depth: int,
    *,
    n_classes: int,
    stem: Stem,
    resnet_shortcut: str = "B",
    resnet_widen_factor: float = 1.0,
) -> ResNet2p1d:
    return ResNet2p1d(
        BasicBlock2p1d if depth in BASIC_DEPTHS else Bottleneck2p1d,
        BLOCKS[depth],
        n_classes=n_classes,
        stem=stem,
        widths=widened(resnet_widen_factor),
        shortcut=resnet_shortcut,
    )
