"""Seeded generator of state dicts that are almost those of the model families."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.build import build

FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {  # the smallest of each
    "resnet": (10, {"resnet_widen_factor": 0.0625}),
    "resnet2p1d": (10, {"resnet_widen_factor": 0.0625}),
    "preresnet": (10, {}),
    "wideresnet": (50, {"wide_resnet_k": 1}),
    "resnext": (50, {}),
    "densenet": (121, {}),
}
NAMES = (
    "",
    ".",
    "weight",
    "fc",
    "module.",
    "layer1",
    "layer1.",
    "layer1..weight",
    "layer1.conv.weight",
    "layer1.x.y",
    "layer1.-1.conv1.weight",
    "layer1.0x1.weight",
    "layer1.00.weight",
    "layer\u0661.0.w",
    "layer1.\u00b2.conv1.weight",
    "layer1.\u0661.conv1.weight",
    f"layer1.{'9' * 5000}.conv1.weight",
    "features.denseblock1.denselayer",
    "features.denseblock1.denselayerx.weight",
    "features.conv1.weight",
    "conv1_s.weight",
    "conv1_t.weight",
    "conv1.weight",
    "layer1.0.conv3.weight",
    "layer2.0.downsample.0.weight",
    "fc.weight",
    "fc.bias",
    "a\nb",
    "\x1b[31m",
    "\ud800",
    "a" * 100_000,
)
# What the architecture is read from.
STRUCTURE = (
    "conv1.weight",
    "conv1_s.weight",
    "conv1_t.weight",
    "layer1.0.conv1.weight",
    "fc.weight",
    "layer1.0.conv2.weight",
    "layer1.0.conv3.weight",
    "layer2.0.conv1.weight",
    "layer2.0.bn1.weight",
    "layer2.0.downsample.0.weight",
    "classifier.weight",
    "features.conv1.weight",
)
DTYPES = (torch.int64, torch.int8, torch.bool, torch.complex64, torch.float16, torch.float64,
          torch.float8_e4m3fn, torch.uint16)  # fmt: skip


def base(family: str) -> dict[str, Tensor]:
    """A whole state dict of zeros, which take no memory until they are written."""
    depth, options = FAMILIES[family]
    with torch.device("meta"):
        model = build(family, depth, n_classes=3, **options)
    return {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in model.state_dict().items()}


def _resized(tensor: Tensor, draw: random.Random) -> Tensor:
    shape = list(tensor.shape) or [1]
    place = draw.randrange(len(shape))
    shape[place] = draw.choice(
        [0, 1, shape[place] + 1, 2 * shape[place], max(1, shape[place] // 3)]
    )
    return torch.zeros(shape, dtype=tensor.dtype)


def _expanded(tensor: Tensor, draw: random.Random) -> Tensor:
    shape = [draw.choice([size, 1, 1000]) for size in tensor.shape]
    return torch.zeros((), dtype=tensor.dtype).expand(shape)


LAYOUTS: dict[str, Callable[[Tensor, random.Random], Tensor]] = {
    "dtype": lambda t, draw: t.to(draw.choice(DTYPES)),
    "sparse": lambda t, draw: t.float().to_sparse(),
    "csr": lambda t, draw: torch.zeros(2, 2).to_sparse_csr(),
    "quantised": lambda t, draw: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "nested": lambda t, draw: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "without values": lambda t, draw: torch.empty(t.shape, device="meta"),
    "expanded": _expanded,
    "overlapping": lambda t, draw: torch.zeros(1).as_strided((3, 3), (0, 0)),
    "resized": _resized,
    "scalar": lambda t, draw: torch.tensor(1.0),
    "more dimensions": lambda t, draw: t[None],
    "fewer dimensions": lambda t, draw: t.flatten(),
    "one dimension less": lambda t, draw: t[0] if t.ndim and len(t) else t,
    "transposed": lambda t, draw: t.transpose(0, -1) if t.ndim else t,
    "not a number": lambda t, draw: torch.full_like(t.float(), float("nan")),
    "parameter": lambda t, draw: torch.nn.Parameter(t.float()),
}


def mutate(whole: dict[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """A copy with one to three faults."""
    weights = dict(whole)
    for _ in range(draw.randint(1, 3)):
        structural = [name for name in STRUCTURE if name in whole]
        name = draw.choice(draw.choice([structural, list(whole)]))
        kind = draw.choice(["drop", "rename", "add", *LAYOUTS, *LAYOUTS])
        if kind in ("drop", "rename"):
            weights.pop(name, None)
        if kind in ("rename", "add"):
            weights[draw.choice(NAMES)] = whole[name]
        if kind in LAYOUTS:
            weights[name] = LAYOUTS[kind](whole[name], draw)
    return weights
