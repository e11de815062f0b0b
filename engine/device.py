"""The device, the arithmetic on it, and the way from uint8 clips to the model's input."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from engine.cpu_memory import Bounded, keep_freed_memory
from errors import UserError
from models import cpu_kernels
from models.folding import folded
from spatial_transforms import MEAN, STD

Scorer = Callable[[Tensor], Tensor]
T = TypeVar("T")

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
MAX_LATE = 50  # batches whose numbers may stay on a GPU before they are fetched
AHEAD = 2  # batches that may wait on a GPU for the one it computes

log = logging.getLogger(__name__)


class HasClips(Protocol):
    """A NamedTuple with a field `clips`."""

    @property
    def clips(self) -> Tensor: ...

    def _replace(self, *, clips: Tensor) -> Any: ...


Batch = TypeVar("Batch", bound=HasClips)


@dataclass(frozen=True)
class Normalization:
    """Pixels 0 … 255 -> (x / 255 * value_scale - mean) / std, channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_scale: int = 1

    @classmethod
    def of(
        cls,
        dataset: str,
        *,
        value_scale: int = 1,
        use_mean: bool = True,
        use_std: bool = True,
        n_channels: int = 3,
    ) -> "Normalization":
        """`dataset` is a key of spatial_transforms.MEAN; mean and std grow with value_scale.

        Flow takes the first two channels' values, as the original does.
        """
        mean = tuple(m * value_scale if use_mean else 0.0 for m in MEAN[dataset][:n_channels])
        std = tuple(s * value_scale if use_std else 1.0 for s in STD[dataset][:n_channels])
        return cls(mean, std, value_scale)


@dataclass(frozen=True)
class Device:
    """Where and in which precision a model runs."""

    device: torch.device
    precision: str  # fp32, bf16 or fp16
    normalization: Normalization

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last: on a CPU convolutions run 1.3 to 3 times as fast that way, and tensor
        cores want it for bf16 and fp16. GPUs compute fp32 as the original had them."""
        if self.device.type == "cuda" and self.precision == "fp32":
            return torch.contiguous_format
        return torch.channels_last_3d

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory layout that suits it and its precision, and on
        a CPU switch it to models.cpu_kernels. Changes the model and returns it."""
        model.to(self.device).to(memory_format=self.memory_format)
        return cpu_kernels.apply(model) if self.device.type == "cpu" else model

    def ahead(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches with their clips here; see `sent` and `paced`."""
        return self.paced(self.sent(batches))

    def sent(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches with their clips here. To a GPU each one travels while those before it
        are computed."""
        if self.device.type == "cpu":
            yield from batches
            return
        side = torch.cuda.Stream(self.device)
        for batch in batches:
            with torch.cuda.stream(side):
                clips = batch.clips.to(self.device, non_blocking=True)
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(side)
            clips.record_stream(here)
            yield batch._replace(clips=clips)

    def paced(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, each once no more than AHEAD before it are still to be computed. That
        bounds the memory of those that wait, and never leaves a GPU without work."""
        if self.device.type == "cpu":
            yield from batches
            return
        given = deque[torch.cuda.Event]()
        for batch in batches:
            yield batch
            given.append(torch.cuda.Event(blocking=True))
            given[-1].record(torch.cuda.current_stream(self.device))
            if len(given) > AHEAD:
                given.popleft().synchronize()

    def fetched(self, results: Iterable[tuple[T, Tensor]]) -> Iterator[tuple[T, Tensor]]:
        """The same pairs with their tensors on the CPU; from a GPU up to MAX_LATE at a time, so
        that it is not waited for after every batch."""
        held: list[tuple[T, Tensor]] = []
        limit = 1 if self.device.type == "cpu" else MAX_LATE
        for result in results:
            held.append(result)
            if len(held) >= limit:
                yield from ((about, tensor.cpu()) for about, tensor in held)
                held.clear()
        yield from ((about, tensor.cpu()) for about, tensor in held)

    def model_input(self, clips: Tensor) -> Tensor:
        """uint8 (B, C, T, H, W) on any device -> normalised float32 of that shape, here."""
        norm = self.normalization
        pixels = clips.to(self.device, non_blocking=True)
        pixels = pixels.to(torch.float32, memory_format=self.memory_format)
        mean, std = _per_channel(norm.mean, self.device), _per_channel(norm.std, self.device)
        return pixels.mul_(norm.value_scale / 255).sub_(mean).div_(std)

    def scorer(self, model: nn.Module) -> Scorer:
        """A function from uint8 clips (B, C, T, H, W) to float32 logits (B, K), which computes
        with a copy of the model as it is now: batch norm folded, in the precision itself."""
        dtype = self.inference_dtype
        ready = self.place(folded(model)).to(dtype)
        memory = Bounded()

        def score(clips: Tensor) -> Tensor:
            with torch.inference_mode():
                scores = ready(self.model_input(clips).to(dtype)).float()
            if self.device.type == "cpu":
                memory.after_batch()
            return scores

        return InParts(score)

    def features(self, features: Tensor) -> Tensor:
        """What a trunk gave, (B, D), as the input of the head alone."""
        return features.to(self.device, non_blocking=True)

    def head_scorer(self, head: nn.Module) -> Scorer:
        """As `scorer`, from features (B, D)."""

        def score(features: Tensor) -> Tensor:
            with torch.inference_mode(), self.autocast():
                return head(self.features(features)).float()

        return score

    @property
    def inference_dtype(self) -> torch.dtype:
        """What weights and activations are held in where no gradient is asked for."""
        if self.precision == "fp32":
            return torch.float32
        return AUTOCAST_DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, AUTOCAST_DTYPES[self.precision])

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which fp16 needs; elsewhere it passes everything through."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


@lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Sent to the device once: a transfer would wait for all that it still has to compute."""
    return torch.tensor(values, device=device).view(-1, 1, 1, 1)


class InParts:
    """A scorer that takes fewer clips at a time once a batch was too much for the memory."""

    def __init__(self, score: Scorer) -> None:
        self.score, self.most = score, sys.maxsize

    def __call__(self, clips: Tensor) -> Tensor:
        while True:
            try:
                return torch.cat([self.score(part) for part in clips.split(self.most)])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self.most = min(self.most, len(clips)) // 2
            if self.most == 0:
                raise UserError(
                    "out of memory for a single clip: take a smaller --sample_size or "
                    "--sample_duration"
                )
            log.warning("out of memory: from here on %d clips at a time are scored", self.most)


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def choose_device(
    *, no_cuda: bool, precision: str, normalization: Normalization, number: int = 0
) -> Device:
    """Pick CUDA where there is one, GPU `number` of it, and settle what --precision auto means.

    A process that computes on the CPU keeps its memory from then on. Raises UserError where the
    device can't compute the precision asked for.
    """
    use_cuda = not no_cuda and torch.cuda.is_available()
    device = torch.device("cuda", number) if use_cuda else torch.device("cpu")
    native_bf16 = _cuda_has_bf16() if use_cuda else cpu_has_bf16()
    if precision == "auto":
        precision = "bf16" if native_bf16 else "fp32"
    if precision == "bf16" and use_cuda and not native_bf16:
        name = torch.cuda.get_device_name()
        raise UserError(f"--precision bf16: {name} does not compute it; take fp16 or fp32")
    if not use_cuda:
        keep_freed_memory()
    return Device(device, precision, normalization)


def _cuda_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bf16() -> bool:
    """Whether convolutions on the CPU multiply bf16 natively (AVX-512 BF16 or AMX; ARM's bf16).

    A torch that can't tell counts as no: emulated bf16 is slower than fp32.
    """
    if not hasattr(torch.cpu, "get_capabilities") or not onednn_has_bf16():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def onednn_has_bf16() -> bool:
    """Whether oneDNN takes bf16 convolutions, natively or emulated with AVX-512.

    Where it does not, torch computes them with slow kernels of its own, which return contiguous
    tensors whatever layout they are given. ONEDNN_MAX_CPU_ISA can hide what the CPU has.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def describe_device(device: Device) -> str:
    """One line for the log."""
    if device.device.type == "cuda":
        name = torch.cuda.get_device_name(device.device)
        return f"{name}, {device.precision}"
    return f"CPU with {torch.get_num_threads()} threads, {device.precision}"
