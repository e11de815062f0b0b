"""The results folder: files of earlier runs are kept."""

import logging
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch

from engine.checkpoint import Checkpoint, load_checkpoint
from errors import UserError, writing

# What runs write, apart from hidden files; everything else in the folder is the user's.
OF_A_RUN = re.compile(
    r"save_\d+\.pth|best\.pth|last\.pth|(train|train_batch|val|time)\.log(\.old)?|opts\.json"
    r"|(train|val|test)(\.run)?\.json|report\.html|top\d+\.txt|events\.out\.tfevents\..+|profile"
)
CHECKPOINT_NAME = re.compile(r"(save_\d{1,9}|best|last)\.pth")
SAVED = re.compile(r"save_(\d{1,9})\.pth")
UNREADABLE_POSITION = (10**10, 0)  # the furthest, so that a damaged file is reported
OF_TRAINING = re.compile(r"save_\d+\.pth|best\.pth|last\.pth|train\.log")
ASIDE = "earlier-"

log = logging.getLogger(__name__)


def holds_training(folder: Path) -> bool:
    """Return whether a folder has logs or checkpoints of a training run."""
    return any(OF_TRAINING.fullmatch(path.name) for path in folder.iterdir())


def is_in(path: Path, folder: Path) -> bool:
    """Return whether a file, or what it links to, is in a folder, however both are written."""
    return folder.resolve() in (path.parent.resolve(), path.resolve().parent)


def set_aside(folder: Path, *, inputs: Collection[Path] = ()) -> Path | None:
    """Move an earlier run's files, except `inputs`, to earlier-1, earlier-2 … below `folder`.

    Returns the new folder, or None if there was nothing to move. Raises UserError.
    """
    kept = {path.resolve() for path in inputs}
    found = [
        path
        for path in sorted(folder.iterdir())
        if OF_A_RUN.fullmatch(path.name) and path.resolve() not in kept
    ]
    return _moved(folder, found, "files and folders of an earlier run")


def set_later_aside(folder: Path, resumed: Path, position: tuple[int, int]) -> Path | None:
    """Move checkpoints from after `position`, (epochs, batches of the next), to earlier-N.

    Copies of the logs and options go with them: the resumed run cuts these back to its position.
    """
    found = [path for path, there in saved_positions(folder).items() if there > position]
    aside = _moved(folder, found, f"checkpoints later than {resumed.name}")
    if aside is not None:
        with writing(aside, "a copy of the logs"):
            for path in folder.iterdir():
                if path.suffix == ".log" or path.name == "opts.json":
                    shutil.copy2(path, aside / path.name)
    return aside


def _moved(folder: Path, found: Sequence[Path], what: str) -> Path | None:
    if not found:
        return None
    with writing(folder, "files of an earlier run"):
        aside = _next_folder(folder)
        for path in found:
            path.rename(aside / path.name)
    log.info("%s: %d %s moved to %s", folder, len(found), what, aside)
    return aside


def _next_folder(folder: Path) -> Path:
    numbers = [path.name.removeprefix(ASIDE) for path in folder.glob(f"{ASIDE}*")]
    number = max((int(n) for n in numbers if n.isascii() and n.isdigit()), default=0) + 1
    aside = folder / f"{ASIDE}{number}"
    aside.mkdir()
    return aside


def find_newest(folder: Path) -> Checkpoint | None:
    """Return the run's checkpoint in `folder` that is furthest in training, or None.

    Damaged files are skipped with a warning. File times do not count: copying changes them.
    """
    positions = saved_positions(folder)
    for path in sorted(positions, key=lambda p: (positions[p], p.name.startswith("save_")))[::-1]:
        try:
            checkpoint = load_checkpoint(path)
        except UserError as error:
            log.warning("skipped: %s", error)
            continue
        if checkpoint.epoch is not None:
            return checkpoint
        log.warning("skipped: %s: contains weights only", path)
    return None


def has_checkpoints(folder: Path) -> bool:
    """Return whether a folder has files with the names of a run's checkpoints, intact or not."""
    return any(_checkpoints_in(folder))


def saved_positions(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return {checkpoint of a run: (epochs done, batches of the next)}."""
    return {path: _position_of(path) for path in _checkpoints_in(folder)}


def _checkpoints_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.pth") if CHECKPOINT_NAME.fullmatch(path.name))


def _position_of(path: Path) -> tuple[int, int]:
    if match := SAVED.fullmatch(path.name):
        return int(match[1]), 0
    for is_mapped in (True, False):  # mapped, torch reads only what is used
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
            position = content.get("position") or {"batches": 0}
            return int(content.get("epoch", 0)), int(position["batches"])
        except Exception:  # reported when the file is loaded
            continue
    return UNREADABLE_POSITION
