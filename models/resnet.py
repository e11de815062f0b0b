"""3D ResNet (Hara et al., arXiv:1711.09577) and the trunk that its relatives share.

Module names are those of the released checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.catalog import Layout

WIDTHS = (64, 128, 256, 512)

# Pairs of child names: a convolution, and the batch norm that is the only reader of its output.
Folds = tuple[tuple[str, str], ...]
Shortcut = nn.Module | None  # a projection to the shape of the output; None is the identity


@dataclass(frozen=True)
class Stem:
    """Channels and downsampling of the stem: space by 4 with max pooling, by 2 without; time by
    `t_stride`, and by another 2 with max pooling.

    `planes` are its output channels, by default those of the first layer, and `mid_planes` those
    between the two convolutions of an R(2+1)D stem, by default those that keep the number of
    weights.
    """

    n_input_channels: int = 3
    t_size: int = 7
    t_stride: int = 1
    max_pool: bool = True
    planes: int = 0
    mid_planes: int = 0


class Block(nn.Module):
    """A residual block with `planes * expansion` output channels, strided in time and space.

    Subclasses are built from (in_planes, planes, stride, shortcut, **options).
    """

    expansion: ClassVar[int] = 1
    folds: ClassVar[Folds] = ()


def conv3x3x3(
    in_planes: int, planes: int, stride: int = 1, groups: int = 1, *, t_size: int = 3
) -> nn.Conv3d:
    """With a `t_size` of 1, a 1x3x3 convolution, strided in space only."""
    padding = (t_size // 2, 1, 1)
    return nn.Conv3d(
        in_planes,
        planes,
        (t_size, 3, 3),
        strides_of(stride, t_size),
        padding,
        groups=groups,
        bias=False,
    )


def conv1x1x1(in_planes: int, planes: int, stride: int | tuple[int, int, int] = 1) -> nn.Conv3d:
    return nn.Conv3d(in_planes, planes, 1, stride, bias=False)


def strides_of(stride: int, t_size: int) -> tuple[int, int, int]:
    """Return the strides in time and space of a layer whose kernels have `t_size` frames."""
    return (stride if t_size > 1 else 1, stride, stride)


def stem_conv(stem: Stem, planes: int) -> nn.Conv3d:
    return nn.Conv3d(
        stem.n_input_channels,
        planes,
        (stem.t_size, 7, 7),
        stride=(stem.t_stride, 2, 2),
        padding=(stem.t_size // 2, 3, 3),
        bias=False,
    )


class PadShortcut(nn.Module):
    """Shortcut A (He et al., arXiv:1512.03385): subsample, and zero-pad the channels."""

    def __init__(self, n_new_channels: int, strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.n_new_channels = n_new_channels
        self.strides = strides

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.strides
        return F.pad(x[:, :, ::t, ::h, ::w], (0, 0, 0, 0, 0, 0, 0, self.n_new_channels))


class BasicBlock(Block):
    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self, in_planes: int, planes: int, stride: int, shortcut: Shortcut, *, t_size: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3x3(in_planes, planes, stride, t_size=t_size)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = conv3x3x3(planes, planes, t_size=t_size)
        self.bn2 = nn.BatchNorm3d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(Block):
    """Convolutions of 1x1x1, 3x3x3 and 1x1x1. `mid_planes`, by default `planes`, `groups` and
    `t_size` are those of the middle one."""

    expansion: ClassVar[int] = 4
    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int,
        shortcut: Shortcut,
        *,
        mid_planes: int | None = None,
        groups: int = 1,
        t_size: int = 3,
    ) -> None:
        super().__init__()
        mid = mid_planes or planes
        self.conv1 = conv1x1x1(in_planes, mid)
        self.bn1 = nn.BatchNorm3d(mid)
        self.conv2 = conv3x3x3(mid, mid, stride, groups, t_size=t_size)
        self.bn2 = nn.BatchNorm3d(mid)
        self.conv3 = conv1x1x1(mid, planes * self.expansion)
        self.bn3 = nn.BatchNorm3d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """The trunk: stem, four layers of residual blocks, global average pool, linear head `fc`."""

    folds: ClassVar[Folds] = (("conv1", "bn1"),)

    def __init__(
        self,
        block: type[Block],
        n_blocks: Sequence[int],
        *,
        n_classes: int,
        stem: Stem,
        dropout: float = 0.0,
        widths: Sequence[int] = WIDTHS,
        shortcut: str = "B",
        n_2d_layers: int = 0,
        block_options: Mapping[str, Any] | None = None,
    ) -> None:
        """`n_blocks` and `widths` (planes) are per layer, `shortcut` is A or B, `dropout` acts on
        the input of the head. The last `n_2d_layers` neither mix frames nor reduce their number."""
        super().__init__()
        self.shortcut = shortcut
        self.in_planes = stem.planes or widths[0]
        self.block_options = dict(block_options or {})
        self.build_stem(stem, self.in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1) if stem.max_pool else nn.Identity()
        t_sizes = [1 if layer >= 4 - n_2d_layers else 3 for layer in range(4)]
        self.layer1 = self._layer(block, widths[0], n_blocks[0], stride=1, t_size=t_sizes[0])
        self.layer2 = self._layer(block, widths[1], n_blocks[1], stride=2, t_size=t_sizes[1])
        self.layer3 = self._layer(block, widths[2], n_blocks[2], stride=2, t_size=t_sizes[2])
        self.layer4 = self._layer(block, widths[3], n_blocks[3], stride=2, t_size=t_sizes[3])
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[3] * block.expansion, n_classes)
        initialise(self)

    def build_stem(self, stem: Stem, planes: int) -> None:
        """Create the modules of `run_stem`. They come first in the state dict."""
        self.conv1 = stem_conv(stem, planes)
        self.bn1 = nn.BatchNorm3d(planes)

    def run_stem(self, x: Tensor) -> Tensor:
        return self.relu(self.bn1(self.conv1(x)))

    def _layer(
        self, block: type[Block], planes: int, n_blocks: int, *, stride: int, t_size: int
    ) -> nn.Sequential:
        out_planes = planes * block.expansion
        shortcut = self._shortcut(out_planes, strides_of(stride, t_size))
        options = self.block_options | ({} if t_size == 3 else {"t_size": t_size})
        first = block(self.in_planes, planes, stride, shortcut, **options)
        self.in_planes = out_planes
        rest = (block(out_planes, planes, 1, None, **options) for _ in range(n_blocks - 1))
        return nn.Sequential(first, *rest)

    def _shortcut(self, out_planes: int, strides: tuple[int, int, int]) -> Shortcut:
        if max(strides) == 1 and self.in_planes == out_planes:
            return None
        if self.shortcut == "A":
            return PadShortcut(out_planes - self.in_planes, strides)
        return nn.Sequential(
            conv1x1x1(self.in_planes, out_planes, strides), nn.BatchNorm3d(out_planes)
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(B, C, T, H, W) -> logits (B, K)."""
        x = self.maxpool(self.run_stem(clips))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def initialise(model: nn.Module) -> None:
    """Initialise convolutions with kaiming_normal (fan out, ReLU) and batch norms with 1 and 0.
    Other layers keep torch's defaults."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def widened(factor: float) -> tuple[int, ...]:
    """Return the planes per layer for --resnet_widen_factor."""
    return tuple(int(width * factor) for width in WIDTHS)


def build(
    layout: Layout,
    *,
    n_classes: int,
    stem: Stem,
    dropout: float = 0.0,
    resnet_shortcut: str = "B",
    resnet_widen_factor: float = 1.0,
    resnet_2d_layers: int = 0,
) -> ResNet:
    return ResNet(
        Bottleneck if layout.bottleneck else BasicBlock,
        layout.n_blocks,
        n_classes=n_classes,
        stem=stem,
        dropout=dropout,
        widths=widened(resnet_widen_factor),
        shortcut=resnet_shortcut,
        n_2d_layers=resnet_2d_layers,
    )
