"""{subset}.run.json: the settings, weights and versions that made a {subset}.json.

A separate file, since results are the same wherever and however fast they were computed.
"""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from errors import UserError
from flags import Role
from option_checks import check_saved
from opts import names_with
from utils.files import write_json
from utils.reading import Finite, read_json, typed

VERSION = "0.2.0"  # of this program; the same as in pyproject.toml

log = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Provenance:
    """How a result was made, as far as known; all None for results of other programs."""

    options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    checkpoint_stamp: tuple[int, float] | None = None  # its bytes and modification time
    epoch: int | None = None
    device: str | None = None
    seconds: float | None = None  # of inference
    finished: str | None = None  # local time
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoint_changed(self) -> bool:
        """Return whether the checkpoint's file has changed since."""
        if self.checkpoint is None or self.checkpoint_stamp is None:
            return False
        return self.checkpoint.exists() and _stamp(self.checkpoint) != self.checkpoint_stamp


class _RunFile(msgspec.Struct):
    """The fields of Provenance as written."""

    options: dict[str, Any] = {}
    checkpoint: str | None = None
    checkpoint_stamp: tuple[int, Finite] | None = None
    epoch: int | None = None
    device: str | None = None
    seconds: Finite | None = None
    finished: str | None = None
    versions: dict[str, str] = {}


def write_provenance(
    result: Path,
    *,
    options: Mapping[str, Any],
    checkpoint: Path | None,
    epoch: int | None,
    device: str,
    seconds: float,
) -> None:
    """Write {subset}.run.json next to `result`, {subset}.json. Raises UserError.

    Paths are absolute, so that they are found from any working directory.
    """
    there = checkpoint is not None and checkpoint.exists()
    paths = {
        name: str(Path(value).absolute())
        for name in names_with(Role.DATA_PATH)
        if (value := options.get(name)) is not None
    }
    content = {
        "options": dict(options) | paths,
        "checkpoint": str(checkpoint.absolute()) if checkpoint and there else None,
        "checkpoint_stamp": _stamp(checkpoint) if checkpoint and there else None,
        "epoch": epoch,
        "device": device,
        "seconds": round(seconds, 3),
        "finished": datetime.now().isoformat(" ", "seconds"),
        "versions": versions(),
    }
    write_json(_beside(result), content)


def read_provenance(result: Path) -> Provenance:
    """Read {subset}.run.json, or without it what opts.json says of the folder's last run."""
    try:
        return _read_beside(result)
    except UserError as error:
        log.warning("%s: the report leaves it out", error)
        return Provenance()


def _read_beside(result: Path) -> Provenance:
    path = _beside(result)
    if path.exists():
        found = typed(read_json(path, "run file"), _RunFile, str(path))
        checkpoint = None if found.checkpoint is None else Path(found.checkpoint)
        known = {name: getattr(found, name) for name in _RunFile.__struct_fields__}
        options = check_saved(found.options, str(path))
        return Provenance(**known | {"options": options, "checkpoint": checkpoint})
    path = result.parent / "opts.json"
    options = check_saved(read_json(path, "options"), str(path)) if path.exists() else {}
    return Provenance(options, _checkpoint_of_run(result.parent, options))


def _checkpoint_of_run(folder: Path, options: Mapping[str, Any]) -> Path | None:
    """Return the weights that a run with these options inferred with."""
    if options.get("no_train") is False:
        return folder / f"save_{options.get('n_epochs')}.pth"
    resumed = options.get("resume_path")
    return Path(resumed) if resumed and resumed != "auto" else None


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python, and of packages that results depend on."""
    found = {"3d-resnets": VERSION, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _beside(result: Path) -> Path:
    return result.with_suffix(".run.json")


def _stamp(path: Path) -> tuple[int, float]:
    status = path.stat()
    return status.st_size, round(status.st_mtime, 3)
