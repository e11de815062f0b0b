"""The one table of models: family name -> builder."""

from collections.abc import Callable
from typing import Any

from torch import nn

from errors import UserError
from models.catalog import FAMILIES
from models.densenet import build_densenet
from models.preresnet import build_preresnet
from models.resnet import Stem, build_resnet
from models.resnet2p1d import build_resnet2p1d
from models.resnext import build_resnext
from models.wideresnet import build_wideresnet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet": build_resnet,
    "resnet2p1d": build_resnet2p1d,
    "preresnet": build_preresnet,
    "wideresnet": build_wideresnet,
    "resnext": build_resnext,
    "densenet": build_densenet,
}


def build(
    family: str,
    depth: int,
    *,
    n_classes: int,
    n_input_channels: int = 3,
    conv1_t_size: int = 7,
    conv1_t_stride: int = 1,
    no_max_pool: bool = False,
    **options: Any,
) -> nn.Module:
    """A freshly initialised model: clips (B, C, T, H, W) -> logits (B, n_classes).

    `options` are what else FAMILIES[family].options lists. Raises UserError for a family or
    depth that is not in the catalog, naming those that are.
    """
    if family not in MODELS:
        raise UserError(f"no model {family!r}; there are {', '.join(MODELS)}")
    if depth not in FAMILIES[family].depths:
        known = ", ".join(map(str, FAMILIES[family].depths))
        raise UserError(f"no {family} of depth {depth}; there are {known}")
    stem = Stem(n_input_channels, conv1_t_size, conv1_t_stride, not no_max_pool)
    return MODELS[family](depth, n_classes=n_classes, stem=stem, **options)
