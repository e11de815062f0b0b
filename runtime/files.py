"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError


def as_utf8(text: str) -> str:
    """Text that any file of UTF-8 can hold: a name's bytes that are no UTF-8 as \\udcff, as JSON
    spells them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, of the same suffix; renamed at the end, and removed where
    that is not reached. Folders are made. Raises UserError where it can't be written."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
