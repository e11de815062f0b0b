"""Writing files whole or not at all, and backups."""

import filecmp
import itertools
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from errors import UserError

# What atomic_write leaves where it is killed, of the files of a run.
LEFTOVERS = tuple(f".*.{kind}.*.tmp*" for kind in ("pth", "log", "json", "html"))
LONGEST_NAME = 200  # bytes of a name that its temporary name keeps; file systems take 255
DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdin|stdout|stderr)|/proc/self/fd/(\d+)")
NUMBERS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def as_utf8(text: str) -> str:
    """Text that any file of UTF-8 can hold: a name's bytes that are no UTF-8 as \\udcff, as JSON
    spells them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to in place of `path`, of the same suffix.

    At the end it replaces `path`, which may be a link, but never what a link leads to; where the
    end is not reached it is removed. Folders are made. A device or pipe gets the bytes at the end.
    Raises UserError where `path` can't be written.
    """
    try:
        if is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                part = Path(folder, f"part{path.suffix}")
                yield part
                with part.open("rb") as file, open_stream(path) as stream:
                    shutil.copyfileobj(file, stream)
                    stream.flush()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        name = os.fsdecode(os.fsencode(path.name)[-LONGEST_NAME:])
        part = path.with_name(f".{name}.{os.getpid()}.tmp{path.suffix}")
        try:
            yield part
            _bring_to_disk(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        kept = "; the earlier file is whole" if path.is_file() and not is_stream(path) else ""
        raise UserError(f"{path}: can't be written: {error.strerror or error}{kept}") from None


def _bring_to_disk(path: Path) -> None:
    """Or a power cut could leave an empty file under a name that has been replaced."""
    with path.open("rb+") as file:  # Windows needs it open for writing
        os.fsync(file.fileno())


def is_stream(path: Path) -> bool:
    """Whether `path` is written into rather than replaced: a device, a pipe, or a descriptor of
    this process such as /dev/stdout, whatever that leads to."""
    if DESCRIPTOR.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open what is_stream finds, for writing. A standard stream stays open at the end.

    Raises UserError where it can't be written.
    """
    match = DESCRIPTOR.fullmatch(str(path))
    number = int(match[1] or match[2] or NUMBERS[str(path)]) if match else None
    standard = {1: sys.stdout, 2: sys.stderr}.get(number or 0)
    try:
        if standard is not None:
            standard.flush()
            yield standard.buffer
        else:
            with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as file:
                yield file
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None


def are_same(one: Path, other: Path) -> bool:
    """Also where one is a link to the other."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.realpath(one) == os.path.realpath(other)


def back_up(path: Path) -> Path:
    """Copy `path` to FILE.bak, or FILE.bak2 … where that holds something else; where the copy is.

    Raises UserError where it can't be written.
    """
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not os.path.lexists(backup):
            break
        if backup.is_file() and filecmp.cmp(path, backup, shallow=False):
            return backup
    with atomic_write(backup) as part:
        shutil.copy2(path, part)
    return backup


def write_json(path: Path, content: Any) -> None:
    """Write JSON beside `path` and rename it there, making its folder. Raises UserError."""
    text = json.dumps(content, allow_nan=False)  # ASCII: names that are not UTF-8 survive
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
