"""ResNeXt (Xie et al., arXiv:1611.05431): the middle convolution in `cardinality` groups."""

from typing import ClassVar

from models.catalog import RESNEXT_WIDTHS, Layout
from models.resnet import Bottleneck, ResNet, Shortcut, Stem


class ResNeXtBottleneck(Bottleneck):
    expansion: ClassVar[int] = 2

    def __init__(
        self, in_planes: int, planes: int, stride: int, shortcut: Shortcut, *, cardinality: int
    ) -> None:
        mid = cardinality * (planes // 32)
        super().__init__(in_planes, planes, stride, shortcut, mid_planes=mid, groups=cardinality)


def build(
    layout: Layout,
    *,
    n_classes: int,
    stem: Stem,
    dropout: float = 0.0,
    resnet_shortcut: str = "B",
    resnext_cardinality: int = 32,
) -> ResNet:
    return ResNet(
        ResNeXtBottleneck,
        layout.n_blocks,
        n_classes=n_classes,
        stem=stem,
        dropout=dropout,
        widths=RESNEXT_WIDTHS,
        shortcut=resnet_shortcut,
        block_options={"cardinality": resnext_cardinality},
    )
