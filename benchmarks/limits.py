"""Upper bounds of the machine: clips per second if it only multiplied matrices."""

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import rate

SIDES = {"cpu": (4096, 1), "cuda": (8192, 50)}  # size of the matrices, and products per measurement


@cache
def flops_per_second(
    dtype: torch.dtype, device: torch.device, sides: tuple[int, int] | None = None
) -> float:
    """Measure large matrix products, counting each multiplication and addition.

    `sides` replaces those of SIDES.
    """
    side, n_products = sides or SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        for _ in range(n_products):
            product = torch.mm(a, b)
        product[0, 0].item()  # synchronises
        return n_products * 2 * side**3

    return rate(work)


def flops_per_clip(model: nn.Module, clip: torch.Tensor) -> float:
    """Count the operations of a forward pass of one clip, float32 (C, T, H, W)."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip[None])
    return counter.get_total_flops()


def flops_of_training(model: nn.Module, clips: torch.Tensor) -> float:
    """Count the operations per clip of a forward and a backward pass, float32 (B, C, T, H, W).

    Layers without gradients, and the input of the first layer, need none in the backward pass.
    """
    with FlopCounterMode(display=False) as counter:
        model.train()(clips).sum().backward()
    return counter.get_total_flops() / len(clips)


def clips_per_second(model: nn.Module, clip: torch.Tensor, dtype: torch.dtype) -> float:
    """Return the limit on the device of `model` and `clip`."""
    return flops_per_second(dtype, clip.device) / flops_per_clip(model, clip)
