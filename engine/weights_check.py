"""Checks of weights from a file: undamaged bytes, and dense real tensors of plausible shapes."""

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
COUNTER = "num_batches_tracked"  # of batch norm, the only integer tensor
REAL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Dimensions of the tensors that torch's modules name like this; other names are not checked.
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
# Errors of zipfile for damaged files.
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError,
           RuntimeError)  # fmt: skip


def check_crc(path: Path) -> None:
    """Check the CRC of every record of a zip file, as torch.save writes; torch.load does not.

    It takes 0.4 s for 400 MB that torch loads in 0.9 s; CHECK_CRC=0 in the environment skips it.
    Other file formats have no checksums. Raises UserError that names the damaged record.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP or os.environ.get(CRC_VARIABLE) == "0":
            return
    record = ""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            # Records are stored uncompressed: more bytes than the file has are a zip bomb.
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
    """Raise UserError that names the first tensor that cannot be a weight of a network."""
    for name, tensor in weights.items():
        if fault := _fault(name, tensor):
            raise UserError(f"{path}: {shown_name(name)} {fault}")


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, as after diverged training."""
    return next((name for name, tensor in weights.items() if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has no NaN or infinity, in an eighth of isfinite()'s time."""
    return tensor.dtype not in REAL or all(bool(end.isfinite()) for end in tensor.aminmax())


def _fault(name: str, tensor: Tensor) -> str | None:
    role = name.rpartition(".")[2]
    fault = fault_of_form(tensor) or _fault_of_role(role, tensor)
    if fault is None and not is_finite(tensor):
        return "contains NaN or infinity: its training diverged; use an earlier checkpoint"
    return fault


def fault_of_form(tensor: Tensor) -> str | None:
    """Return what is wrong with a tensor's storage; torch's kernels need plain dense memory."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"is a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"is not a dense tensor ({'nested' if tensor.is_nested else tensor.layout})"
    if tensor.is_quantized or tensor.is_complex():
        return f"holds {tensor.dtype}: only real, unquantized numbers are weights"
    if tensor.device.type != "cpu":
        return f"has no values (device {tensor.device})"
    if tensor.numel() == 0:
        return f"is empty: its shape is {tuple(tensor.shape)}"
    if _is_expanded(tensor):
        return f"of shape {tuple(tensor.shape)} repeats a few values instead of storing all"
    return None


def _is_expanded(tensor: Tensor) -> bool:
    """Return whether elements share memory, as after torch.Tensor.expand."""
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
        return f"has shape {tuple(tensor.shape)}, which no {role} has"
    return None


def odd_rank(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Describe, for a message, the first weight whose dimensions no 3D network has; '' if none.

    Explains why a network is not recognised.
    """
    for name, shape in shapes.items():
        for pattern, rank in RANK_OF:
            if pattern.search(name) and len(shape) != rank:
                return f": {shown_name(name)} has {len(shape)} dimensions instead of {rank}"
    return ""
