"""Whether weights from a file are what they say: bytes as they were written, and dense tensors of
numbers in the memory that their shapes need."""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from errors import UserError
from utils.reading import shown_name

ZIP = b"PK\x03\x04"
UNREADABLE = "is no checkpoint that torch can read, or only a part of one"
CRC_VARIABLE = "CHECK_CRC"  # environment variable; 0 skips the check
CHUNK = 1 << 20  # bytes
COUNTER = "num_batches_tracked"  # of batch norm, the only integer
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Dimensions by what a tensor is called in every module of torch's; other names are free.
RANKS = {
    "weight": range(1, 6),
    "bias": range(1, 2),
    "running_mean": range(1, 2),
    "running_var": range(1, 2),
    COUNTER: range(0, 1),
}
RANK_OF = (
    (re.compile(r"(^|\.)conv\d*(_[st])?\.weight$"), 5),
    (re.compile(r"^(fc|classifier)\.weight$"), 2),
)
# What zipfile raises for damaged files.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError,
           RuntimeError)  # fmt: skip


def check_crc(path: Path) -> None:
    """Compare every record of a zip, which torch.save writes, with its CRC; torch.load does not.

    0.4 s for 400 MB that torch loads in 0.9 s; CHECK_CRC=0 in the environment skips it. Files of
    other forms have no checksums. Raises UserError that names the damaged record.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP or os.environ.get(CRC_VARIABLE) == "0":
            return
    record = ""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            # Each is stored as it is: more bytes than the file has come from a zip bomb.
            if sum(info.file_size for info in records) > path.stat().st_size:
                raise UserError(f"{path}: damaged: its records are larger than the file")
            for info in records:
                record = shown_name(info.filename)
                if info.CRC != 0:  # 0 after torch.serialization.set_crc32_options(False)
                    with archive.open(info) as stored:
                        while stored.read(CHUNK):
                            pass
    except DAMAGED:
        fault = f"damaged: the checksum of {record} is wrong" if record else UNREADABLE
        raise UserError(f"{path}: {fault} ({path.stat().st_size} bytes)") from None


def check_tensors(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError that names the first tensor that no weights of a network can be."""
    for name, tensor in weights.items():
        if fault := _fault(name, tensor):
            raise UserError(f"{path}: {shown_name(name)} {fault}")


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, as after training that diverged."""
    return next((name for name, tensor in weights.items() if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity: 0.07 s for 400 MB, an eighth of isfinite()'s."""
    return tensor.dtype not in REAL or all(bool(end.isfinite()) for end in tensor.aminmax())


def _fault(name: str, tensor: Tensor) -> str | None:
    role = name.rpartition(".")[2]
    fault = fault_of_form(tensor) or _fault_of_role(role, tensor)
    if fault is None and not is_finite(tensor):
        return "holds NaN or infinity, as after training that diverged: take an earlier checkpoint"
    return fault


def fault_of_form(tensor: Tensor) -> str | None:
    """Anything but plain memory: torch's kernels for weights take nothing else."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"is a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"is not a dense tensor ({'nested' if tensor.is_nested else tensor.layout})"
    if tensor.is_quantized or tensor.is_complex():
        return f"holds {tensor.dtype}: only real, unquantized numbers are weights"
    if tensor.device.type != "cpu":
        return f"holds no values (device {tensor.device})"
    if tensor.numel() == 0:
        return f"is empty: its shape is {tuple(tensor.shape)}"
    if _is_expanded(tensor):
        return f"of shape {tuple(tensor.shape)} repeats a few values instead of holding all"
    return None


def _is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory, as those of torch.Tensor.expand do."""
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return True
    return any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _fault_of_role(role: str, tensor: Tensor) -> str | None:
    ranks = RANKS.get(role)
    if ranks is None:
        return None
    if tensor.dtype not in REAL and role != COUNTER:
        return f"holds {tensor.dtype}, not floating-point numbers"
    if tensor.ndim not in ranks:
        return f"is of shape {tuple(tensor.shape)}, which no {role} has"
    return None


def odd_rank(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of a network that is not recognised, for a message: the first weight that has not the
    dimensions of a 3D convolution or of a head; '' where there is none."""
    for name, shape in shapes.items():
        for pattern, rank in RANK_OF:
            if pattern.search(name) and len(shape) != rank:
                return f": {shown_name(name)} has {len(shape)} dimensions instead of {rank}"
    return ""
