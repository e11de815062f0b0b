"""What the machine allows: clips per second if it did nothing but multiply matrices."""

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import rate

SIDES = {"cpu": (4096, 1), "cuda": (8192, 50)}  # of the matrices, and products in a row


@cache
def flops_per_second(dtype: torch.dtype, device: torch.device) -> float:
    """Of large matrix products, each multiplication and addition counted."""
    side, times = SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        for _ in range(times):
            product = torch.mm(a, b)
        product[0, 0].item()  # waits for all of them
        return times * 2 * side**3

    return rate(work)


def flops_per_clip(model: nn.Module, clip: torch.Tensor) -> float:
    """Of one forward pass over one clip, float32 (C, T, H, W)."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip[None])
    return counter.get_total_flops()


def clips_per_second(model: nn.Module, clip: torch.Tensor, dtype: torch.dtype) -> float:
    """`model` and `clip` lie where the matrices shall."""
    return flops_per_second(dtype, clip.device) / flops_per_clip(model, clip)
