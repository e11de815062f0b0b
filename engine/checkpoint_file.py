"""Checkpoint files: written atomically, read without running code from them.

A file holds {"epoch", "arch", "state_dict", "optimizer", "scheduler"} as the original's do, and the
fields of engine.checkpoint_fields. Tensors and plain Python values only, so that torch.load reads
it with weights_only=True.
"""

import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.advice import no_such_checkpoint
from engine.weights_check import UNREADABLE, check_crc, check_tensors
from errors import UserError
from utils.files import atomic_write
from utils.interruption import interruption_behind
from utils.reading import parse_json, typed

SAFETENSORS = ".safetensors"
ABOUT = "3d-resnets"  # in the metadata of a .safetensors: the fields below, as JSON
IN_ABOUT = ("options", "class_names", "versions")
WEIGHTS_ELSEWHERE = ("model", "model_state_dict")  # where other programs have "state_dict"
# Torch's errors for a file that names a class or function beyond those that tensors need.
REFUSED = re.compile(r"GLOBAL (\S+)|unrecognized function (.+)|but got (<class .+>)", re.IGNORECASE)
PICKLE = b"\x80"  # then the protocol; torch.save writes 2
WRAPPER_PREFIX = "module."  # that DataParallel puts before every name


def save_checkpoint(path: Path, content: Mapping[str, Any], *, mark: str = "") -> None:
    """Write `content` atomically; to a name that ends in .safetensors what inference needs: the
    weights, options and class names.

    `mark` is stored where readers of checkpoints do not look, to recognise the file by. Raises
    UserError if the disk is full or the folder is not writable.
    """
    with atomic_write(path) as part:
        try:
            with part.open("w+b") as file:
                if path.suffix == SAFETENSORS:
                    file.write(_as_safetensors(content, mark))
                else:
                    torch.save(dict(content), file)
                    if mark:
                        with zipfile.ZipFile(file, "a") as archive:
                            archive.writestr(f"archive/{mark}", b"")
        except RuntimeError as error:  # torch's error for a short write
            if (interrupted := interruption_behind(error)) is not None:
                raise interrupted from None
            raise OSError("only part of it was written; is the disk full?") from None


def _as_safetensors(content: Mapping[str, Any], mark: str) -> bytes:
    from safetensors.torch import save

    weights = weights_of(content)
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    metadata = {"mark": mark} if mark else {}
    about = {} if weights is content else {n: content[n] for n in IN_ABOUT if n in content}
    if about:
        try:
            metadata[ABOUT] = json.dumps(about, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # of a file that no run wrote
            names = " and ".join(about)
            raise UserError(f"the {names} of the checkpoint can't be written as JSON") from None
    return save(tensors, metadata or None)


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the state dict in a file's content: under 'state_dict', or the content itself."""
    return content.get("state_dict", content)


def read_content(path: Path) -> dict[str, Any]:
    """Read a whole file, names of tensors unchanged, without running code from it.

    Weights beside other fields are under "state_dict". Raises UserError.
    """
    _check_is_file(path)
    content = _read_safetensors(path) if path.suffix == SAFETENSORS else _read(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains a {type(content).__name__}, not a checkpoint")
    for name in WEIGHTS_ELSEWHERE:
        if "state_dict" not in content and holds_weights(content.get(name)):
            content["state_dict"] = content.pop(name)
    weights = weights_of(content)
    if not holds_weights(weights) or not weights:
        raise UserError(f"{path}: contains no weights under 'state_dict'")
    check_tensors(weights, path)
    return content


def holds_weights(value: Any) -> bool:
    """Return whether a value from a file maps names to tensors."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


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


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: needs the package safetensors: pip install safetensors") from None
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(ABOUT)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if text is None:
        return tensors
    about = typed(parse_json(text, path, "metadata"), dict[str, Any], f"{path}: metadata")
    return {"state_dict": tensors} | {name: about[name] for name in IN_ABOUT if name in about}


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
