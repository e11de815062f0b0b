"""The device, its precision, and the normalisation of uint8 clips to model input."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from engine.cpu_memory import keep_freed_memory
from errors import UserError
from models import cpu_kernels
from spatial_transforms import MEAN, STD

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        """Look up `dataset` in spatial_transforms.MEAN and STD, scaled by `value_scale`.

        Optical flow uses the first two channels' values, as the original does.
        """
        mean = tuple(m * value_scale if use_mean else 0.0 for m in MEAN[dataset][:n_channels])
        std = tuple(s * value_scale if use_std else 1.0 for s in STD[dataset][:n_channels])
        return cls(mean, std, value_scale)


@dataclass(frozen=True)
class Device:
    """Where and in which precision a model runs."""

    torch_device: torch.device
    precision: str  # fp32, bf16 or fp16
    normalization: Normalization

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last: convolutions run 1.3 to 3 times as fast on a CPU, and tensor cores want it
        for bf16 and fp16. GPUs compute fp32 contiguously, as the original does."""
        if self.torch_device.type == "cuda" and self.precision == "fp32":
            return torch.contiguous_format
        return torch.channels_last_3d

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory format that suits it, and on a CPU switch it to
        models.cpu_kernels. Changes the model and returns it."""
        model.to(self.torch_device).to(memory_format=self.memory_format)
        return cpu_kernels.apply(model) if self.torch_device.type == "cpu" else model

    def model_input(self, clips: Tensor) -> Tensor:
        """Normalise uint8 clips (B, C, T, H, W) from any device to float32 on this one."""
        norm = self.normalization
        pixels = clips.to(self.torch_device, non_blocking=True)
        pixels = pixels.to(torch.float32, memory_format=self.memory_format)
        mean, std = (
            _per_channel(norm.mean, self.torch_device),
            _per_channel(norm.std, self.torch_device),
        )
        return pixels.mul_(norm.value_scale / 255).sub_(mean).div_(std)

    @property
    def inference_dtype(self) -> torch.dtype:
        """The type of weights and activations where no gradient is computed."""
        return AUTOCAST_DTYPES.get(self.precision, torch.float32)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, AUTOCAST_DTYPES[self.precision])

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaling that fp16 needs; other precisions get one that does nothing."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.precision == "fp16")

    def __str__(self) -> str:
        if self.torch_device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.torch_device)}, {self.precision}"
        n_threads = torch.get_num_threads()
        return f"CPU with {n_threads} thread{'' if n_threads == 1 else 's'}, {self.precision}"


@lru_cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (C, 1, 1, 1) values on a device; cached, since transfers wait for the GPU."""
    return torch.tensor(values, device=device).view(-1, 1, 1, 1)


def choose_device(
    *, no_cuda: bool, precision: str, normalization: Normalization, gpu_index: int = 0
) -> Device:
    """Pick CUDA if there is any, GPU `gpu_index`, and resolve --precision auto.

    Raises UserError if the device cannot compute the requested precision.
    """
    use_cuda = not no_cuda and torch.cuda.is_available()
    device = torch.device("cuda", gpu_index) if use_cuda else torch.device("cpu")
    native_bf16 = _cuda_has_bf16() if use_cuda else cpu_has_bf16()
    if precision == "auto":
        precision = "bf16" if native_bf16 else "fp32"
    if precision == "bf16" and use_cuda and not native_bf16:
        name = torch.cuda.get_device_name(device)
        raise UserError(f"--precision bf16: {name} does not support it; choose fp16 or fp32")
    return Device(device, precision, normalization)


def tune_process(device: Device) -> None:
    """Set what suits the device for the whole process; for programs only.

    On a CPU, keep freed memory. On a GPU, compute fp32 convolutions in fp32: by default, cuDNN
    rounds their input to the 10 bits of TF32, which the original's results do not contain.
    """
    if device.torch_device.type == "cpu":
        keep_freed_memory()
    elif device.precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False


def is_out_of_memory(error: Exception) -> bool:
    is_named = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_named or "can't allocate memory" in str(error)


@contextmanager
def explained_out_of_memory(advice: str) -> Iterator[None]:
    """Turn a lack of memory, wherever it shows, into a UserError that gives `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory: {advice}") from None


def _cuda_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bf16() -> bool:
    """Return whether convolutions on this CPU multiply bf16 natively (AVX-512 BF16, AMX, ARM bf16).

    False if torch cannot say, because emulated bf16 is slower than fp32.
    """
    if not hasattr(torch.cpu, "get_capabilities") or not onednn_has_bf16():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def onednn_has_bf16() -> bool:
    """Return whether oneDNN takes bf16 convolutions, natively or emulated with AVX-512.

    Otherwise torch falls back to slow kernels of its own, which return contiguous tensors whatever
    the input's memory format. ONEDNN_MAX_CPU_ISA can hide what the CPU has.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
