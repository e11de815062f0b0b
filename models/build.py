"""Build a model of any family in models/catalog.py, and give a model a new head."""

from importlib import import_module
from typing import Any

from torch import nn

from errors import UserError
from models.catalog import FAMILIES
from models.resnet import Stem


def build(
    family: str,
    depth: int,
    *,
    n_classes: int,
    n_input_channels: int = 3,
    dropout: float = 0.0,
    conv1_t_size: int = 7,
    conv1_t_stride: int = 1,
    conv1_planes: int = 0,
    conv1_mid_planes: int = 0,
    no_max_pool: bool = False,
    bn_eps: float = 1e-5,
    **options: Any,
) -> nn.Module:
    """Build a freshly initialised model: clips (B, C, T, H, W) -> logits (B, n_classes).

    `dropout` acts on the input of the head, in training mode. `options` are the remaining ones of
    FAMILIES[family].options. Raises UserError for an unknown family or depth, listing the known
    ones.
    """
    if family not in FAMILIES:
        raise UserError(f"unknown model {family!r}; choose from {', '.join(FAMILIES)}")
    entry = FAMILIES[family]
    if depth not in entry.depths:
        known = ", ".join(map(str, entry.depths))
        raise UserError(f"{family} has no depth {depth}; choose from {known}")
    stem = Stem(
        n_input_channels,
        conv1_t_size,
        conv1_t_stride,
        not no_max_pool,
        conv1_planes,
        conv1_mid_planes,
    )
    module = import_module(f"models.{family}")
    model = module.build(
        entry.depths[depth], n_classes=n_classes, stem=stem, dropout=dropout, **options
    )
    if entry.zero_head_bias:
        nn.init.zeros_(getattr(model, entry.head).bias)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.eps = bn_eps
    return model


def replace_head(model: nn.Module, family: str, n_classes: int) -> None:
    """Replace the head of a model of `family` by a freshly initialised one of `n_classes`."""
    entry = FAMILIES[family]
    head = nn.Linear(getattr(model, entry.head).in_features, n_classes)
    if entry.zero_head_bias:
        nn.init.zeros_(head.bias)
    setattr(model, entry.head, head)
