"""What is measured and on which device: the sizes of a GPU, and small ones to rehearse on a CPU."""

import contextlib
import gc
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import main
from datasets.video_dataset import ClipBatch
from engine.device import Device, Normalization, choose_device
from models.build import build

NAMES = {"resnet": "R3D", "resnet2p1d": "R(2+1)D"}
DURATION = 16  # frames of a clip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """`frames` holds a folder of frame folders per class; `work` is for temporary files, `out` for
    what is kept."""

    work: Path
    out: Path
    frames: Path
    on_cpu: bool = False  # a rehearsal
    depth: int = 50
    width: float = 1.0
    side: int = 112  # of a clip, in pixels
    batch_sizes: Sequence[int] = (128, 32)
    n_classes: int = 700
    steps: int = 5  # per measurement
    epoch_clips: int = 40 * 128
    matrices: tuple[int, int] | None = None  # replaces limits.SIDES

    def device(self, precision: str = "auto", *, cpu: bool = False) -> Device:
        return choose_device(
            no_cuda=cpu or self.on_cpu,
            precision="fp32" if cpu or self.on_cpu else precision,
            normalization=Normalization.of("kinetics"),
        )

    def build(self, family: str) -> nn.Module:
        """Return a model whose weights are the same on every call."""
        torch.manual_seed(1)
        sizes: dict[str, Any] = {"resnet_widen_factor": self.width}
        return build(family, self.depth, n_classes=self.n_classes, **sizes)

    def clips(self, n: int) -> Tensor:
        """Return random pixels, uint8 (n, 3, T, H, W), the same on every call."""
        draw = torch.Generator().manual_seed(1)
        shape = (n, 3, DURATION, self.side, self.side)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)

    def batch(self, n: int, device: Device) -> ClipBatch:
        """Return random clips and labels on the device."""
        clips = self.clips(n).to(device.torch_device)
        labels = (torch.arange(n) % self.n_classes).to(device.torch_device)
        return ClipBatch(clips, labels, labels, [], [])


def in_small(setting: Setting) -> Setting:
    """Return the setting of a rehearsal: seconds on a CPU."""
    return replace(
        setting,
        on_cpu=True,
        depth=10,
        width=0.125,
        side=32,
        batch_sizes=(4, 2),
        n_classes=9,
        steps=1,
        epoch_clips=16,
        matrices=(256, 1),
    )


@contextlib.contextmanager
def backends_restored() -> Iterator[None]:
    """Undo on leaving what programs set for the whole process: TF32 and cuDNN's autotuning."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def free_memory() -> None:
    """Return a GPU's memory that no tensor uses, for other processes and larger tensors."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a GPU


def run_main(arguments: Sequence[Any]) -> None:
    """Run main.py in this process, in silence. Raises RuntimeError if it fails."""
    words, errors = [str(word) for word in arguments], StringIO()
    logging.disable()
    try:
        with backends_restored(), contextlib.redirect_stdout(StringIO()):  # noqa: SIM117
            with contextlib.redirect_stderr(errors):
                status = main.main(words)
    finally:
        logging.disable(logging.NOTSET)
    if status != 0:
        raise RuntimeError(f"main.py {' '.join(words)}: status {status}: {errors.getvalue()}")
