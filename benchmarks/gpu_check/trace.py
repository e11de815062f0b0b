"""A torch.profiler trace of ten training steps, summed up by kind of kernel and by kernel."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import Setting, backends_restored
from benchmarks.gpu_check.speed import Kind, our_step
from benchmarks.gpu_check.tables import Row

STEPS, WARM_UP, N_KERNELS = 10, 3, 12
KINDS = {  # of kernels, by what their names contain; the first that fits
    "convolution": r"conv|gemm|cutlass|xmma|wgrad|dgrad|fprop|sm\d+_|nvjet|implicit",
    "batch norm": r"batch_?norm|bn_",
    "optimiser": r"multi_tensor|fused_?(sgd|adam)",
    "change of layout": r"nchwtonhwc|nhwctonchw|transpose|permute",
    "copy": r"memcpy|memset|copy",
    "pooling": r"pool",
    "elementwise": r"elementwise|vectorized|threshold|clamp|relu|add|mul|triton",
}


class Kernel(NamedTuple):
    name: str
    start: float  # microseconds
    end: float


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    kernels = traced(setting)
    first, last = min(k.start for k in kernels), max(k.end for k in kernels)
    total, busy = last - first, covered(kernels)
    yield {"kernels": "a step", "ms": total / STEPS / 1000, "share, %": 100.0, "calls": None}
    yield {
        "kernels": "any, on the device",
        "ms": busy / STEPS / 1000,
        "share, %": 100 * busy / total,
        "calls": len(kernels) // STEPS,
    }
    by_kind = [(f"kind: {kind_of(k.name)}", k) for k in kernels]
    yield from _summed(by_kind, total, most=len(KINDS) + 1)
    yield from _summed([(k.name[:80], k) for k in kernels], total, most=N_KERNELS)


def traced(setting: Setting) -> list[Kernel]:
    """Trace R3D-50, all layers, at the larger batch size; write the trace to trace.json.gz."""
    activities = [ProfilerActivity.CPU]
    if not setting.on_cpu:
        activities.append(ProfilerActivity.CUDA)
    with backends_restored():
        torch.backends.cudnn.benchmark = True
        step = our_step(setting, Kind("resnet", setting.batch_sizes[0], "all layers"))()
        for _ in range(WARM_UP):
            step().sum().item()
        with profile(activities=activities) as profiler:
            for _ in range(STEPS):
                result = step()
            result.sum().item()
    profiler.export_chrome_trace(str(setting.out / "trace.json.gz"))
    wanted = DeviceType.CPU if setting.on_cpu else DeviceType.CUDA
    events = [
        event
        for event in profiler.events() or ()
        if event.device_type == wanted and not event.is_user_annotation
    ]
    return [Kernel(e.name, e.time_range.start, e.time_range.end) for e in events]


def covered(kernels: Iterable[Kernel]) -> float:
    """Return the microseconds in which at least one kernel runs."""
    total, until = 0.0, float("-inf")
    for kernel in sorted(kernels, key=lambda k: k.start):
        total += max(0.0, kernel.end - max(kernel.start, until))
        until = max(until, kernel.end)
    return total


def kind_of(name: str) -> str:
    """Guess what a kernel is for."""
    lower = name.lower()
    return next((kind for kind, text in KINDS.items() if re.search(text, lower)), "other")


def _summed(named: list[tuple[str, Kernel]], total: float, *, most: int) -> Iterator[Row]:
    """Yield a row for each name, of the largest sums."""
    sums: dict[str, list[float]] = {}
    for name, kernel in named:
        sums.setdefault(name, []).append(kernel.end - kernel.start)
    for name in sorted(sums, key=lambda n: -sum(sums[n]))[:most]:
        time = sum(sums[name])
        yield {
            "kernels": name,
            "ms": time / STEPS / 1000,
            "share, %": 100 * time / total,
            "calls": round(len(sums[name]) / STEPS),
        }
