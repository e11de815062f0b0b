"""A GPU against the CPU: logits, one training step, and the lower precision against fp32."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.gpu_check.record import Record
from benchmarks.gpu_check.setting import NAMES, Setting, backends_restored
from benchmarks.gpu_check.tables import Row
from benchmarks.steps import make_trainer
from engine.device import Device, tune_process
from engine.scoring import make_scorer
from model import frozen_batch_norms
from tests.golden.weights import with_golden_weights

N_CLIPS = 4
EXACT = 1e-4  # of fp32 on two kinds of device
FROZEN = "training step with frozen batch norm"
# Limits of a step. Statistics of few clips amplify rounding in 50 layers: two implementations on
# one CPU were seen to differ by 4% in the gradients of such a step, and by 6e-6 in its loss.
STEPS = {
    FROZEN: {"loss": EXACT, "gradients": 1e-3, "weights": EXACT},
    "training step": {"loss": EXACT, "gradients": 0.2},
}
ROUNDED = {"bf16": 0.05, "fp16": 0.02}  # of logits and the loss, against fp32
RATE = 0.001  # the learning rate


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
        for what, limits in STEPS.items():
            freezes = what == FROZEN
            ours = step(setting, family, gpu, freezes=freezes)
            theirs = step(setting, family, cpu, freezes=freezes)
            for name, limit in limits.items():
                pair = getattr(ours, name), getattr(theirs, name)
                yield compared(f"{title}, {what}, fp32, {name}", *pair, limit)
        if lower.precision == "fp32":
            return
        name, limit = f"{lower.precision} against fp32", ROUNDED[lower.precision]
        rounded = logits(setting, family, lower)
        yield compared(f"{title}, logits, {name}", rounded, exact, limit)
        loss = step(setting, family, lower, freezes=False).loss
        yield compared(f"{title}, training step, {name}, loss", loss, ours.loss, limit)


def compared(what: str, ours: Tensor, expected: Tensor, limit: float) -> Row:
    """Return the row of a relative difference, in the Euclidean norm."""
    difference = float((ours - expected).norm() / expected.norm())
    return {"what": what, "difference": difference, "limit": limit, "passed": difference <= limit}


def logits(setting: Setting, family: str, device: Device) -> Tensor:
    """Return the logits of a few clips, (B, K) on the CPU."""
    return make_scorer(_model(setting, family).eval(), device)(setting.clips(N_CLIPS)).cpu()


def step(setting: Setting, family: str, device: Device, *, freezes: bool) -> Step:
    """Train one step, with statistics of batch norm that are those of the clips, or frozen."""
    model = device.place(_model(setting, family))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, fused=True)
    trainer = make_trainer(model, optimizer, device)
    if freezes:
        trainer = replace(trainer, frozen_norms=frozen_batch_norms(model))
    trainer.begin_epoch()
    sums = trainer.run_batch(setting.batch(N_CLIPS, device), n_clips=N_CLIPS)
    parameters = list(model.parameters())
    return Step(
        sums.loss.cpu().double() / N_CLIPS,
        torch.cat([p.grad.flatten().cpu().double() for p in parameters if p.grad is not None]),
        torch.cat([p.detach().flatten().cpu().double() for p in parameters]),
    )


def _model(setting: Setting, family: str) -> nn.Module:
    """Return a model with the weights of the golden runs. Their scales of batch norm, 0.5, keep
    rounding errors small, as in a trained network; random ones amplify them in 50 layers."""
    return with_golden_weights(setting.build(family))
