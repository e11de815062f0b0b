"""How many clips per second a model processes on this device, measured in a few seconds."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.device import Device
from engine.scoring import make_scorer

SECONDS = 3.0  # per measurement, after one round to warm up
LONG_ROUND = 15.0  # seconds; one such round is enough
MIN_ROUNDS, MAX_ROUNDS = 3, 200


def inference_speed(model: nn.Module, device: Device, clips: Tensor) -> float:
    """Return the clips per second that inference scores, in batches like `clips`: uint8,
    (B, C, T, H, W)."""
    score = make_scorer(model.eval(), device)
    return len(clips) / _seconds_per_round(lambda: score(clips).sum().item())


def training_speed(model: nn.Module, device: Device, clips: Tensor) -> float:
    """Return the clips per second of forward and backward passes, of all layers."""
    device.place(model).train()
    labels = torch.zeros(len(clips), dtype=torch.long, device=device.torch_device)

    def work() -> None:
        with device.autocast():
            loss = F.cross_entropy(model(device.model_input(clips)).float(), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)
        loss.item()
        if device.torch_device.type == "cuda":
            torch.cuda.synchronize(device.torch_device)

    return len(clips) / _seconds_per_round(work)


def _seconds_per_round(work: Callable[[], object]) -> float:
    if (first := _seconds_of(work)) > LONG_ROUND:
        return first
    times: list[float] = []
    while len(times) < MIN_ROUNDS or (sum(times) < SECONDS and len(times) < MAX_ROUNDS):
        times.append(_seconds_of(work))
    return statistics.median(times)


def _seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
