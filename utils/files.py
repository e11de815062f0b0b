"""Atomic writing of files, and backups."""

import filecmp
import itertools
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from errors import UserError

# What atomic_write leaves of a run's files if the process is killed.
LEFTOVERS = tuple(f".*.{kind}.*.tmp*" for kind in ("pth", "log", "json", "html"))
LONGEST_NAME = 200  # bytes of a name kept in its temporary name; file systems allow 255
DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdin|stdout|stderr)|/proc/self/fd/(\d+)")
NUMBERS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def as_utf8(text: str) -> str:
    """Escape what UTF-8 can't encode: bytes of a file name become \\udcff, as in JSON."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, with the same suffix, that replaces `path` at the end of the block.

    If the block fails, the temporary file is removed and `path` stays as it was. A link is
    replaced, not followed; parent folders are created; a device or pipe gets the bytes at the end.
    Raises UserError from the OSError if `path` can't be written.
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
        unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # two threads may write one file
        part = path.with_name(f".{name}.{unique}.tmp{path.suffix}")
        try:
            yield part
            _sync(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        kept = "; the previous file is unchanged" if path.is_file() and not is_stream(path) else ""
        raise UserError(f"{path}: can't be written: {error.strerror or error}{kept}") from error


def _sync(path: Path) -> None:
    """Flush a file to disk, or a power failure could leave an empty file after the rename."""
    with path.open("rb+") as file:  # Windows requires write access
        os.fsync(file.fileno())


def is_stream(path: Path) -> bool:
    """Whether `path` is written to instead of replaced: a device, a pipe, or a descriptor of this
    process such as /dev/stdout."""
    if DESCRIPTOR.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a path that is_stream is true for. Standard streams stay open at the end.

    Raises UserError if it can't be written.
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
    """Whether two paths name the same file, also through links."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.realpath(one) == os.path.realpath(other)


def back_up(path: Path) -> Path:
    """Copy `path` to FILE.bak, or FILE.bak2 … if that has other content; return the copy's path.

    Raises UserError if it can't be written.
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
    """Write JSON atomically, creating parent folders. Raises UserError."""
    text = json.dumps(content, allow_nan=False)  # ASCII, so that names that are not UTF-8 survive
    write_text(path, text)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write UTF-8 atomically, creating parent folders. `errors` is that of str.encode.

    Raises UserError if `path` can't be written.
    """
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)
