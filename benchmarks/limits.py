"""What the machine allows: clips per second if it did nothing but multiply matrices."""

from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import rate

SIDE = 4096  # of the matrices


@cache
def flops_per_second(dtype: torch.dtype) -> float:
    """Of a large matrix product, each multiplication and addition counted."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))

    def work() -> float:
        torch.mm(a, b)
        return 2 * SIDE**3

    return rate(work)


def flops_per_clip(model: nn.Module, clip: torch.Tensor) -> float:
    """Of one forward pass over one clip, float32 (C, T, H, W)."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clip[None])
    return counter.get_total_flops()


def clips_per_second(model: nn.Module, clip: torch.Tensor, dtype: torch.dtype) -> float:
    return flops_per_second(dtype) / flops_per_clip(model, clip)
