"""Checkpoints: written atomically, read without running code, checked before use.

A file holds {"epoch", "arch", "state_dict", "optimizer", "scheduler"} as the original's do, and the
fields of engine.checkpoint_fields. Tensors and plain Python values only, so that torch.load reads
it with weights_only=True.
"""

import logging
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from engine.advice import no_such_checkpoint
from engine.checkpoint_fields import Best, Extras, SavedPosition, read_extras
from engine.weights_check import UNREADABLE, check_crc, check_tensors
from errors import UserError
from models.arch_detect import Identity, identify
from models.catalog import FAMILIES
from models.download import local_file
from models.namings import Inflation, Naming, find_naming
from models.weights import HostedWeights
from utils.files import atomic_write
from utils.reading import shown_name

SAFETENSORS = ".safetensors"
# Torch's errors for a file that names a class or function beyond those that tensors need.
REFUSED = re.compile(r"GLOBAL (\S+)|unrecognized function (.+)|but got (<class .+>)", re.IGNORECASE)
PICKLE = b"\x80"  # then the protocol; torch.save writes 2
# With --ema, "state_dict" is the average, and this the weights that training continues from.
TRAINED = "trained_state_dict"
WRAPPER_PREFIX = "module."  # that DataParallel puts before every name
I3D = Inflation()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file, names without `module.`; what the file lacks is None.

    The weights of a file in the `naming` of another program have this program's names and shapes.
    """

    path: Path
    state_dict: dict[str, Tensor]
    epoch: int | None
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    extras: Extras
    trained_state_dict: dict[str, Tensor] | None = None  # of a run with --ema
    naming: Naming | None = None
    hosted: HostedWeights | None = None  # which of the hosted weights it is, if any

    @property
    def class_names(self) -> list[str] | None:
        return self.extras.class_names

    @property
    def options(self) -> dict[str, Any]:
        """The options it was trained with, as far as known; empty for the original's files."""
        if self.extras.options:
            return self.extras.options
        found = dict(self.naming.options) if self.naming else {}
        return found | (self.hosted.options if self.hosted else {})

    @property
    def best(self) -> Best | None:
        """The best epoch so far and its accuracy."""
        return self.extras.best

    @property
    def position(self) -> SavedPosition | None:
        """The position inside an epoch; None for a file saved at the end of one."""
        return self.extras.position

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict.items()}

    @property
    def identity(self) -> Identity | None:
        return identify(self.shapes)

    @property
    def is_ours(self) -> bool:
        """Whether this program wrote it, after the schedule's step; the original saves before."""
        return self.extras.is_ours


def save_checkpoint(path: Path, content: Mapping[str, Any], *, mark: str = "") -> None:
    """Write `content` atomically; to a name that ends in .safetensors only the weights.

    `mark` is stored where readers of checkpoints do not look, to recognise the file by. Raises
    UserError if the disk is full or the folder is not writable.
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
        except RuntimeError:  # torch's error for a short write
            raise OSError("only part of it was written; is the disk full?") from None


def _as_safetensors(weights: Mapping[str, Tensor], mark: str) -> bytes:
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    return save(tensors, {"mark": mark} if mark else None)


def load_checkpoint(path: Path, *, inflation: Inflation = I3D) -> Checkpoint:
    """Read a checkpoint or a bare state dict, without running code from it. Raises UserError.

    `path` may also be the name of hosted weights, which are downloaded if need be. A file in one of
    models.namings.NAMINGS is translated; `inflation` is for the 2D ones.
    """
    path, hosted = local_file(path)
    content = read_content(path)
    weights = weights_of(content)
    stripped = {name.removeprefix(WRAPPER_PREFIX): tensor for name, tensor in weights.items()}
    if len(stripped) < len(weights):
        raise UserError(f"{path}: has names both with and without {WRAPPER_PREFIX!r}")
    naming = find_naming({name: tuple(tensor.shape) for name, tensor in stripped.items()})
    if naming is not None:
        stripped = _translated(naming, stripped, inflation, path)
    beside = {} if weights is content else content
    epoch, optimizer, scheduler = map(beside.get, ("epoch", "optimizer", "scheduler"))
    # Other programs store other things under these names; they count as absent.
    return Checkpoint(
        path,
        stripped,
        epoch if isinstance(epoch, int) and 0 <= epoch < 2**53 else None,
        optimizer if _holds(optimizer, "state", "param_groups") else None,
        scheduler if isinstance(scheduler, dict) else None,
        _with_class_names(read_extras(beside, str(path)), hosted),
        _trained_weights(beside, stripped, path),
        naming,
        hosted,
    )


def _translated(
    naming: Naming, weights: Mapping[str, Tensor], inflation: Inflation, path: Path
) -> dict[str, Tensor]:
    n_new = len({naming.renamed(name) for name in weights})
    if n_new < len(weights):
        raise UserError(f"{path}: mixes the names of {naming.title} with others")
    return naming.translate(weights, inflation)


def _with_class_names(extras: Extras, hosted: HostedWeights | None) -> Extras:
    """Add the published class names of hosted weights, whose files hold none."""
    if hosted is None or extras.class_names is not None:
        return extras
    names = hosted.class_names()
    return extras if names is None else msgspec.structs.replace(extras, class_names=list(names))


def _trained_weights(
    beside: Mapping[str, Any], averaged: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor] | None:
    """Return the checked weights under TRAINED, if there are any."""
    weights = beside.get(TRAINED)
    if weights is None:
        return None
    if not isinstance(weights, dict) or not _all_tensors(weights):
        raise UserError(f"{path}: {TRAINED} contains no weights")
    check_tensors(weights, path)
    shapes = {name: tensor.shape for name, tensor in averaged.items()}
    if {name: tensor.shape for name, tensor in weights.items()} != shapes:
        raise UserError(f"{path}: {TRAINED} differs from state_dict in names or shapes")
    return weights


def _holds(state: Any, *keys: str) -> bool:
    return isinstance(state, dict) and all(key in state for key in keys)


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the state dict in a file's content: under 'state_dict', or the content itself."""
    return content.get("state_dict", content)


def read_content(path: Path) -> dict[str, Any]:
    """Read a whole file, names unchanged, without running code from it. Raises UserError."""
    _check_is_file(path)
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains a {type(content).__name__}, not a checkpoint")
    weights = weights_of(content)
    if not isinstance(weights, dict) or not weights or not _all_tensors(weights):
        raise UserError(f"{path}: contains no weights under 'state_dict'")
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
        with warnings.catch_warnings():  # of pickle protocols, reported below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_unpickling_cause(path, str(error))}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception:  # torch has no single error for truncated files and files of other kinds
        raise UserError(f"{path}: {UNREADABLE} ({path.stat().st_size} bytes)") from None


def _unpickling_cause(path: Path, message: str) -> str:
    if refused := REFUSED.search(message):
        name = next(group for group in refused.groups() if group)
        return (
            f"refused: it would run code when loaded ({name.rstrip('.')}), which no checkpoint "
            "needs. If you trust it, load it with weights_only=False and save its state_dict"
        )
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == PICKLE and start[1:] > b"\x02":
        return "refused: a pickle that torch.save did not write could run code"
    return UNREADABLE


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load a checkpoint's weights into a model.

    Raises UserError that names the flags in which file and model differ.
    """
    check_fits(model, checkpoint)
    model.load_state_dict(checkpoint.state_dict)


def check_fits(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Compare names and shapes, also of a model on the meta device. Raises UserError."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = checkpoint.shapes
    if ours != theirs:
        raise UserError(f"{checkpoint.path}: {_difference(theirs, ours)}")


def _difference(theirs: dict[str, tuple[int, ...]], ours: dict[str, tuple[int, ...]]) -> str:
    """Describe in one line how the file's architecture differs from the flags'."""
    file, flags = identify(theirs), identify(ours)
    if file is not None and flags is not None and file != flags:
        in_file, in_flags = file.values, flags.values
        names = [name for name in in_file if in_file[name] != in_flags.get(name)]
        if names == ["n_classes"] and not file.n_classes:
            return "the checkpoint has no head; train one with --pretrain_path"
        if "model" in names:  # everything else follows from it
            names = ["model", "model_depth"]
        hint = " (--input_type flow has 2, rgb 3)" if "n_input_channels" in names else ""
        saved, given = (
            ", ".join(f"{name} {values[name]}" for name in names) for values in (in_file, in_flags)
        )
        return f"the checkpoint has {saved}; the flags say {given}{hint}"
    for name, shape in ours.items():
        if name not in theirs:
            return f"the checkpoint has no {name}, which the flags' model needs"
        if theirs[name] != shape:
            return f"{name} has shape {theirs[name]} in the checkpoint, {shape} in the flags' model"
    extra = next(name for name in theirs if name not in ours)
    return f"the checkpoint has {shown_name(extra)}, which the flags' model lacks"


def n_classes_of(checkpoint: Checkpoint, head: str) -> int:
    """Return the number of outputs of a checkpoint's head, 0 for a trunk without one. Raises
    UserError for another family."""
    weight = checkpoint.state_dict.get(f"{head}.weight")
    if weight is None:
        identity = checkpoint.identity
        if identity is not None and FAMILIES[identity.model].head == head:
            return 0
        kind = f"a {identity.arch}" if identity else "of another family"
        raise UserError(f"{checkpoint.path}: has no head {head!r}: it is {kind}")
    if weight.ndim != 2:
        raise UserError(f"{checkpoint.path}: {head}.weight is {tuple(weight.shape)}, not a matrix")
    return weight.shape[0]
