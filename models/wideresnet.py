"""Wide ResNet (Zagoruyko and Komodakis, arXiv:1605.07146): `wide_resnet_k` times as many planes,
and blocks with an expansion of 2."""

from typing import ClassVar

from models.catalog import Layout
from models.resnet import WIDTHS, Bottleneck, ResNet, Stem


class WideBottleneck(Bottleneck):
    expansion: ClassVar[int] = 2


def build(
    layout: Layout,
    *,
    n_classes: int,
    stem: Stem,
    dropout: float = 0.0,
    resnet_shortcut: str = "B",
    wide_resnet_k: int = 2,
) -> ResNet:
    return ResNet(
        WideBottleneck,
        layout.n_blocks,
        n_classes=n_classes,
        stem=stem,
        dropout=dropout,
        widths=tuple(width * wide_resnet_k for width in WIDTHS),
        shortcut=resnet_shortcut,
    )
