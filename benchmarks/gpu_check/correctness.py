"""A GPU against the CPU: logits, one training step, and the lower precision against fp32."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import NAMES, Setting, backends_restored
from benchmarks.gpu_check.tables import Row
from benchmarks.steps import make_trainer
from engine.device import Device, tune_process
from engine.scoring import make_scorer

N_CLIPS = 4
EXACT = 1e-4  # of fp32 on two kinds of device
# Gradients differ by more: a value near 0 can end up on the other side of a ReLU.
GRADIENTS = 1e-2
ROUNDED = {"bf16": 0.05, "fp16": 0.01}  # of logits, against fp32


@dataclass(frozen=True)
class Step:
    """What one step computes, as vectors."""

    loss: Tensor
    gradients: Tensor
    weights: Tensor  # after the step


def rows(setting: Setting, record: Record) -> Iterator[Row]:
    for family in NAMES:
        yield from rows_of(setting, family)


def rows_of(setting: Setting, family: str) -> Iterator[Row]:
    cpu, gpu = setting.device("fp32", cpu=True), setting.device("fp32")
    lower = setting.device()
    title = f"{NAMES[family]}-{setting.depth}"
    with backends_restored():
        tune_process(gpu)
        exact = logits(setting, family, gpu)
        expected = logits(setting, family, cpu)
        yield compared(f"{title}, logits, fp32", exact, expected, EXACT)
        ours, theirs = step(setting, family, gpu), step(setting, family, cpu)
        for what, limit in (("loss", EXACT), ("gradients", GRADIENTS), ("weights", EXACT)):
            pair = getattr(ours, what), getattr(theirs, what)
            yield compared(f"{title}, training step, fp32, {what}", *pair, limit)
        if lower.precision == "fp32":
            return
        name, limit = f"{lower.precision} against fp32", ROUNDED[lower.precision]
        rounded = logits(setting, family, lower)
        yield compared(f"{title}, logits, {name}", rounded, exact, limit)
        loss = step(setting, family, lower).loss
        yield compared(f"{title}, training step, {name}, loss", loss, ours.loss, limit)


def compared(what: str, ours: Tensor, expected: Tensor, limit: float) -> Row:
    """Return the row of a relative difference, in the Euclidean norm."""
    difference = float((ours - expected).norm() / expected.norm())
    return {"what": what, "difference": difference, "limit": limit, "passed": difference <= limit}


def logits(setting: Setting, family: str, device: Device) -> Tensor:
    """Return the logits of a few clips, (B, K) on the CPU."""
    model = setting.build(family)
    with torch.no_grad():  # statistics unlike those of a new model
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return make_scorer(model.eval(), device)(setting.clips(N_CLIPS)).cpu()


def step(setting: Setting, family: str, device: Device) -> Step:
    model = device.place(setting.build(family))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    trainer = make_trainer(model, optimizer, device)
    trainer.begin_epoch()
    sums = trainer.run_batch(setting.batch(N_CLIPS, device), n_clips=N_CLIPS)
    parameters = list(model.parameters())
    return Step(
        sums.loss.cpu().double() / N_CLIPS,
        torch.cat([p.grad.flatten().cpu().double() for p in parameters if p.grad is not None]),
        torch.cat([p.detach().flatten().cpu().double() for p in parameters]),
    )
