"""Read files of users and other programs with care: only regular files (a named pipe would block
forever), strict JSON, values of the expected types."""

import json
import os
import re
import reprlib
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from errors import UserError

BINARY = getattr(os, "O_BINARY", 0)  # without it, Windows translates line ends
# O_NONBLOCK: opening a named pipe must not wait for a writer.
OPEN_FLAGS = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)
LARGEST = 1e300  # larger numbers would overflow in sums
Finite = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
LONGEST_NAME = 4096  # characters of a label or an id
DRIVE_OR_ROOT = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
PLACE = re.compile(r"^(?P<fault>.*) - at `(?P<key>key` in `)?\$\.?(?P<place>.*)`$", re.DOTALL)

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 120

T = TypeVar("T")


def read_bytes(path: Path, what: str) -> bytes:
    """Read a regular file. Raises UserError, which calls the file `what`."""
    try:
        with os.fdopen(os.open(path, OPEN_FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path}: the {what} can't be read: not a regular file")
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        cause = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: the {what} can't be read: {cause}") from None
    except MemoryError:
        raise UserError(f"{path}: the {what} is too large for this machine's memory") from None


def read_text(path: Path, what: str, *, errors: str = "strict") -> str:
    """Read a UTF-8 file, with or without a byte order mark. Raises UserError like read_bytes."""
    return decode_text(read_bytes(path, what), path, what, errors=errors)


def decode_text(raw: bytes, path: Path, what: str, *, errors: str = "strict") -> str:
    """Decode the bytes of a file, like read_text."""
    try:
        return raw.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the {what} is not UTF-8 text: {_at_byte(error)}") from None


def _at_byte(error: UnicodeDecodeError) -> str:
    return f"byte {error.start} is {error.object[error.start]:#04x}"


def shown(value: object) -> str:
    """Format a value for a message: on one line, and shortened."""
    return SHORT.repr(value)


def shown_name(name: str) -> str:
    """Format a name for a message: unchanged if it is one short line."""
    return name if name.isprintable() and len(name) <= SHORT.maxstring else shown(name)


def read_json(path: Path, what: str) -> Any:
    """Read a strict JSON file: no NaN or Infinity, no duplicate keys.

    Raises UserError, which calls the file `what`.
    """
    return parse_json(read_text(path, what), path, what)


def parse_json(text: str, path: Path, what: str) -> Any:
    """Parse JSON like read_json; `path` is for messages."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fault = f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # _unique, _refuse_constant, and numbers of thousands of digits
        fault = str(error).split(";")[0]
    except RecursionError:
        raise UserError(f"{path}: the {what} is nested too deeply") from None
    except MemoryError:
        raise UserError(f"{path}: the {what} is too large for this machine's memory") from None
    raise UserError(f"{path}: the {what} is not JSON: {fault}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} occurs twice in one object")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def typed(content: Any, kind: type[T], place: str) -> T:
    """Convert `content` to a type that msgspec supports: a Struct, a TypedDict, tuple[int, int] …

    Raises UserError, which begins with `place` and says where in the content the fault is.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{place}: {_fault(str(error))}") from None
    except UnicodeEncodeError:
        raise UserError(f"{place}: a key contains a lone surrogate") from None


def _fault(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.a[0]`" -> "a[0]: expected int, got str"."""
    match = PLACE.match(message)
    fault, place = (match["fault"], match["place"]) if match else (message, "")
    fault = (fault[:1].lower() + fault[1:]).replace("`", "")
    return f"{place}: {fault}" if place else fault


def bad_name(name: str, *, is_path: bool = False) -> str | None:
    """Explain why a label or id can't be the name of a folder of frames; None if it can.

    With `is_path`, it may lead out of FRAMES_DIR.
    """
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    if "\0" in name:
        return "contains a NUL character"
    if not name.isascii():
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            return "contains a lone surrogate"
    if is_path:
        return None
    if DRIVE_OR_ROOT.match(name) or (".." in name and ".." in re.split(r"[/\\]", name)):
        return "leads out of the folder of frames"
    return None
