"""Wide ResNet (Zagoruyko and Komodakis, arXiv:1605.07146): `k` times as many planes, and blocks
that expand by 2."""

from typing import ClassVar

from models.resnet import BLOCKS, WIDTHS, Bottleneck, ResNet, Stem


class WideBottleneck(Bottleneck):
    expansion: ClassVar[int] = 2


def build_wideresnet(
    depth: int, *, n_classes: int, stem: Stem, resnet_shortcut: str = "B", wide_resnet_k: int = 2
) -> ResNet:
    return ResNet(
        WideBottleneck,
        BLOCKS[depth],
        n_classes=n_classes,
        stem=stem,
        widths=tuple(width * wide_resnet_k for width in WIDTHS),
        shortcut=resnet_shortcut,
    )
