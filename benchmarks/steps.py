"""Training steps of an R3D-50 on clips of 16 x 112 x 112: the whole model, and only its head."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.fresh_process import in_fresh_process
from benchmarks.limits import clips_per_second
from benchmarks.timing import Comparison, compare
from datasets.video_dataset import ClipBatch
from engine.device import Device, Normalization, choose_device
from engine.optim import Optimization
from engine.scoring import clip_network
from model import freeze_before
from models.build import build
from training import Trainer

N_CLASSES = 101
ROUNDS = 7


def comparisons(*, batch_size: int = 8, depth: int = 50, side: int = 112) -> Iterator[Comparison]:
    clips = torch.randint(0, 256, (batch_size, 3, 16, side, side), dtype=torch.uint8)
    labels = torch.randint(0, N_CLASSES, (batch_size,))
    for begin, title in (("", "all of it"), ("fc", "head only")):
        with in_fresh_process(_plain_step, depth, begin, clips, labels) as theirs:
            for device in devices():
                ours = _our_step(depth, begin, clips, labels, device)
                name = f"training step, R3D-{depth}, batch {batch_size}, {title}, "
                limit = _limit(depth, begin, clips, device)
                yield compare(
                    name + device.precision, "clips/s", ours, theirs, rounds=ROUNDS, limit=limit
                )
    device = devices()[0]
    yield compare(
        f"head only against gradients everywhere, R3D-{depth}, batch {batch_size}, fp32 both",
        "clips/s",
        _our_step(depth, "fc", clips, labels, device),
        _our_step(depth, "", clips, labels, device),
        rounds=ROUNDS,
    )


def devices() -> list[Device]:
    """Return the CPU with fp32, and with the precision of --precision auto if that differs."""
    normalization = Normalization.of("kinetics")
    fp32, auto = (
        choose_device(no_cuda=True, precision=precision, normalization=normalization)
        for precision in ("fp32", "auto")
    )
    return [fp32] if auto == fp32 else [fp32, auto]


def _limit(depth: int, begin: str, clips: Tensor, device: Device) -> float:
    """The forward pass, and twice as much for the backward pass if all weights are trained."""
    model = build("resnet", depth, n_classes=N_CLASSES).eval()
    return clips_per_second(model, clips[0].float(), device.inference_dtype) / (1 if begin else 3)


def _trained(model: nn.Module, begin: str) -> list[nn.Parameter]:
    return list(model.get_submodule("fc").parameters()) if begin else list(model.parameters())


def _plain_step(depth: int, begin: str, clips: Tensor, labels: Tensor) -> Callable[[], float]:
    model = build("resnet", depth, n_classes=N_CLASSES).train()
    optimizer = torch.optim.SGD(_trained(model, begin), lr=1e-4, momentum=0.9)

    def work() -> float:
        plain.train_step(model, optimizer, clips, labels)
        return len(clips)

    return work


def _our_step(
    depth: int, begin: str, clips: Tensor, labels: Tensor, device: Device
) -> Callable[[], float]:
    model = device.place(build("resnet", depth, n_classes=N_CLASSES)).train()
    freeze_before(model, "resnet", begin)
    optimizer = torch.optim.SGD(_trained(model, begin), lr=1e-4, momentum=0.9, fused=True)
    trainer = make_trainer(model, optimizer, device)
    batch = ClipBatch(clips, labels, torch.arange(len(clips)), [], [])

    def work() -> float:
        trainer.run_batch(batch, n_clips=len(clips))
        return len(clips)

    return work


def make_trainer(model: nn.Module, optimizer: torch.optim.Optimizer, device: Device) -> Trainer:
    """Return a trainer of a whole model, whose learning rate stays as it is."""
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1000])
    optim = Optimization(optimizer, schedule, "multistep", device.grad_scaler())
    network = clip_network(model, device)
    return Trainer(model=model, network=network, optim=optim, device=device, n_classes=N_CLASSES)
