"""Checkpoints: whole or not at all on disk, never code when read, checked before they are used.

A file is {"epoch", "arch", "state_dict", "optimizer", "scheduler"} as the original writes it, and
beside these what only we write: "class_names", "options", "versions", "best", "scaler" and, saved
inside an epoch, "position". Tensors and plain Python values only, so that weights_only=True loads
it.
"""

import logging
import pickle
import re
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.advice import no_such_checkpoint
from engine.checkpoint_fields import Best, Extras, SavedPosition, read_extras
from engine.weights_check import UNREADABLE, check_crc, check_tensors
from errors import UserError
from models.arch_detect import Identity, identify
from utils.files import atomic_write
from utils.reading import shown_name

SAFETENSORS = ".safetensors"
OF_A_RUN = re.compile(r"(save_\d{1,9}|best|last)\.pth")  # what engine.checkpoint_manager writes
UNREADABLE_POSITION = (10**10, 0)  # the furthest, so that a damaged file is reported
SAVED = re.compile(r"save_(\d{1,9})\.pth")
# What torch says of a file that names a class or function beyond those that tensors need.
REFUSED = re.compile(r"GLOBAL (\S+)|unrecognized function (.+)|but got (<class .+>)", re.IGNORECASE)
PICKLE = b"\x80"  # and the protocol; torch.save writes protocol 2
WRAPPER_PREFIX = "module."  # what DataParallel puts before every name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A file's content, names without `module.`. What a file does not hold is None."""

    path: Path
    state_dict: dict[str, Tensor]
    epoch: int | None
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    extras: Extras

    @property
    def class_names(self) -> list[str] | None:
        return self.extras.class_names

    @property
    def options(self) -> dict[str, Any]:
        """The options it was trained with; empty for files of the original."""
        return self.extras.options

    @property
    def best(self) -> Best | None:
        """The best epoch so far and its accuracy."""
        return self.extras.best

    @property
    def position(self) -> SavedPosition | None:
        """How far into an epoch it was saved; None at the end of one."""
        return self.extras.position

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict.items()}

    @property
    def identity(self) -> Identity | None:
        return identify(self.shapes)

    @property
    def is_ours(self) -> bool:
        """Whether we wrote it: the original saves before its scheduler steps, we after."""
        return self.extras.is_ours


def save_checkpoint(path: Path, content: Mapping[str, Any], *, mark: str = "") -> None:
    """Write `content` so that `path` holds the old file or the whole new one, never a part.

    A name that ends in .safetensors takes the weights alone. `mark` is kept where no reader of
    checkpoints looks. Raises UserError where the disk is full or the folder can't be written.
    """
    with atomic_write(path) as part:
        try:
            with part.open("w+b") as file:
                if path.suffix == SAFETENSORS:
                    file.write(_as_safetensors(weights_of(content), mark))
                else:
                    torch.save(dict(content), file)
                    if mark:
                        with zipfile.ZipFile(file, "a") as archive:
                            archive.writestr(f"archive/{mark}", b"")
        except RuntimeError:  # torch's word for a short write
            raise OSError("only a part could be written; is the disk full?") from None


def _as_safetensors(weights: Mapping[str, Tensor], mark: str) -> bytes:
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    return save(tensors, {"mark": mark} if mark else None)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint or a bare state dict. Runs no code from it; raises UserError."""
    content = read_content(path)
    weights = weights_of(content)
    stripped = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if len(stripped) < len(weights):
        raise UserError(f"{path}: holds names both with and without {WRAPPER_PREFIX!r}")
    beside = {} if weights is content else content
    epoch, optimizer, scheduler = map(beside.get, ("epoch", "optimizer", "scheduler"))
    # Other programs keep other things under these names; those are as good as absent.
    return Checkpoint(
        path,
        stripped,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**53 else None,
        optimizer if _holds(optimizer, "state", "param_groups") else None,
        scheduler if isinstance(scheduler, dict) else None,
        read_extras(beside, str(path)),
    )


def _holds(state: Any, *keys: str) -> bool:
    return isinstance(state, dict) and all(key in state for key in keys)


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict of a file's content: under 'state_dict', or the content itself."""
    return content.get("state_dict", content)


def read_content(path: Path) -> dict[str, Any]:
    """All that a file holds, names as they are. Runs no code from it; raises UserError."""
    _check_is_file(path)
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    weights = weights_of(content)
    if not isinstance(weights, dict) or not weights or not _all_tensors(weights):
        raise UserError(f"{path}: holds no weights under 'state_dict'")
    check_tensors(weights, path)
    return content


def _check_is_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(no_such_checkpoint(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder, not a checkpoint")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is not a regular file")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: needs the package safetensors: pip install safetensors") from None
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def _all_tensors(weights: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items())


def _read(path: Path) -> Any:
    try:
        check_crc(path)
        with warnings.catch_warnings():  # of pickle protocols, told below in a line of our own
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_unpickling_cause(path, str(error))}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception:  # torch has no one error for a file cut short or of another kind
        if _is_old_tar(path):
            raise UserError(
                f"{path}: is a tar file of torch before 0.1.10, which can only be read by running "
                "code from it: load it with weights_only=False and save it anew, if you trust it"
            ) from None
        raise UserError(f"{path}: {UNREADABLE} ({path.stat().st_size} bytes)") from None


def _is_old_tar(path: Path) -> bool:
    try:
        with tarfile.open(path) as archive:
            return "storages" in archive.getnames()
    except (tarfile.TarError, OSError):
        return False


def _unpickling_cause(path: Path, message: str) -> str:
    if refused := REFUSED.search(message):
        name = next(group for group in refused.groups() if group)
        return (
            f"wants to run code when loaded ({name.rstrip('.')}), which checkpoints have no need "
            "of; refused. If you trust it, load it with weights_only=False and save its state_dict"
        )
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == PICKLE and start[1:] > b"\x02":
        return "is a pickle that torch.save did not write, which could run code; refused"
    return UNREADABLE


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model; every tensor must fit.

    Raises UserError with the flags by which file and model differ.
    """
    check_fits(model, checkpoint)
    model.load_state_dict(checkpoint.state_dict)


def check_fits(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Compare names and shapes, which a model on the meta device has too. Raises UserError."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = checkpoint.shapes
    if ours != theirs:
        raise UserError(f"{checkpoint.path}: {_difference(theirs, ours)}")


def _difference(theirs: dict[str, tuple[int, ...]], ours: dict[str, tuple[int, ...]]) -> str:
    """In one line, what the file is and what the flags say."""
    file, flags = identify(theirs), identify(ours)
    if file is not None and flags is not None and file != flags:
        in_file, in_flags = file.values, flags.values
        names = [name for name in in_file if in_file[name] != in_flags.get(name)]
        if "model" in names:  # what else differs follows from it
            names = ["model", "model_depth"]
        hint = " (--input_type flow has 2, rgb 3)" if "n_input_channels" in names else ""
        saved, given = (
            ", ".join(f"{name} {values[name]}" for name in names) for values in (in_file, in_flags)
        )
        return f"the checkpoint has {saved}; the flags say {given}{hint}"
    for name, shape in ours.items():
        if name not in theirs:
            return f"the checkpoint lacks {name}, which the flags' model has"
        if theirs[name] != shape:
            return f"{name} is {theirs[name]} in the checkpoint, {shape} in the flags' model"
    extra = next(name for name in theirs if name not in ours)
    return f"the checkpoint has {shown_name(extra)}, which the flags' model lacks"


def n_classes_of(checkpoint: Checkpoint, head: str) -> int:
    """The number of outputs of a checkpoint's head. Raises UserError if it has no such head."""
    weight = checkpoint.state_dict.get(f"{head}.weight")
    if weight is None:
        identity = checkpoint.identity
        kind = f"a {identity.arch}" if identity else "of another family"
        raise UserError(f"{checkpoint.path}: has no head {head!r}; the checkpoint is {kind}")
    if weight.ndim != 2:
        raise UserError(f"{checkpoint.path}: {head}.weight is {tuple(weight.shape)}, not a matrix")
    return weight.shape[0]


def check_class_names(checkpoint: Checkpoint, labels: Sequence[str], index: Path) -> None:
    """Raises UserError where the file's class names are not the index's, in its order.

    Other names or another order make a trained head's outputs mean something else: accuracy
    falls to chance without any other sign. Files of the original carry no names.
    """
    names = checkpoint.class_names
    if names is None or list(names) == list(labels):
        return
    pairs = zip_longest(names, labels)
    number, (saved, given) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    raise UserError(
        f"{checkpoint.path}: class {number} is {saved!r} in the checkpoint and {given!r} in "
        f"{index}: use the index it was trained with, or --pretrain_path for new classes"
    )


def find_newest(folder: Path) -> Checkpoint | None:
    """The whole checkpoint of a run in `folder` that is furthest in training, or None. Damaged ones
    are named. File times do not count: copying a folder changes them."""
    positions = saved_positions(folder)
    for path in sorted(positions, key=lambda p: (positions[p], p.name.startswith("save_")))[::-1]:
        try:
            checkpoint = load_checkpoint(path)
        except UserError as error:
            log.warning("passed over: %s", error)
            continue
        if checkpoint.epoch is not None:
            return checkpoint
        log.warning("passed over: %s: holds weights only", path)
    return None


def saved_positions(folder: Path) -> dict[Path, tuple[int, int]]:
    """How far the checkpoints of a run in `folder` are: whole epochs, and batches of the next."""
    found = (path for path in folder.glob("*.pth") if OF_A_RUN.fullmatch(path.name))
    return {path: _position_of(path) for path in found}


def _position_of(path: Path) -> tuple[int, int]:
    if match := SAVED.fullmatch(path.name):
        return int(match[1]), 0
    for is_mapped in (True, False):  # mapped, torch reads only what is asked for
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
            position = content.get("position") or {"batches": 0}
            return int(content.get("epoch", 0)), int(position["batches"])
        except Exception:  # what is wrong with it is reported when it is loaded
            continue
    return UNREADABLE_POSITION
