"""The results folder: one training run at a time, and what earlier runs left there is kept."""

import errno
import logging
import os
import re
import shutil
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.checkpoint import saved_positions
from errors import UserError, writing

# What runs write beside hidden files; anything else in the folder is the user's and stays.
OF_A_RUN = re.compile(
    r"save_\d+\.pth|best\.pth|last\.pth|(train|train_batch|val|time)\.log(\.old)?|opts\.json"
    r"|(train|val|test)(\.run)?\.json|report\.html|top\d+\.txt|events\.out\.tfevents\..+|profile"
)
OF_TRAINING = re.compile(r"save_\d+\.pth|best\.pth|last\.pth|train\.log")
ASIDE = "earlier-"
LOCK = ".lock"

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second training run, by a lock that ends with this process however
    that ends. Its file is removed at the end.

    Raises UserError where another process holds it. File systems without locks go without.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = folder / LOCK
    with writing(folder, "the lock"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Not flock, whose lock loader workers would inherit and hold after a kill.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 200).decode(errors="replace").strip()
        os.close(handle)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.info("%s: can't be locked against a second run: %s", folder, error.strerror)
            yield
            return
        raise UserError(
            f"--result_path {folder}: another run is training there now ({holder}): wait for its "
            "end, or choose another folder"
        ) from None
    try:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def holds_training(folder: Path) -> bool:
    """Whether a training run has left its logs or checkpoints in a folder."""
    return any(OF_TRAINING.fullmatch(path.name) for path in folder.iterdir())


def set_aside(folder: Path, *, inputs: Collection[Path] = ()) -> Path | None:
    """Move what an earlier run left into earlier-1, earlier-2 … below `folder`, but for `inputs`.

    Returns the new folder; None where there was nothing to move. Raises UserError.
    """
    kept = {path.resolve() for path in inputs}
    found = [
        path
        for path in sorted(folder.iterdir())
        if OF_A_RUN.fullmatch(path.name) and path.resolve() not in kept
    ]
    return _moved(folder, found, "files and folders of an earlier run")


def set_later_aside(folder: Path, resumed: Path, position: tuple[int, int]) -> Path | None:
    """Move the checkpoints of epochs after `position` (epochs, batches of the next) to earlier-N,
    with copies of the logs and options, which a run resumed there cuts back.

    Nothing is moved where the resumed file lies elsewhere: set_aside then moves all.
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
    with writing(folder, "what an earlier run left there"):
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
