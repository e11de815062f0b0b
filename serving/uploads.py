"""Receive an upload: the body of a request, written to a file as it arrives."""

import asyncio
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from media.verdicts import is_video_name
from serving.hub import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

PATIENCE = 60  # seconds without data
SPARE = 200 << 20  # bytes to leave free on the disk
LONGEST_NAME = 120  # characters


class TooLarge(Refused):
    pass


class NoSpace(Refused):
    """The server can't store an upload."""


class Broken(Refused):
    """The upload did not arrive completely."""


def shown_size(n_bytes: int) -> str:
    """Format bytes as MB or GB, of 1000."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def clean_name(name: str) -> str:
    """Return a name from a browser as one line of printable characters, without folders."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    if len(kept) > LONGEST_NAME:
        kept = f"{kept[: LONGEST_NAME - 20]}…{kept[-19:]}"
    return kept or "video"


def upload_path(folder: Path, name: str, stem: str) -> Path:
    """Return where an upload is stored: of the browser's name, only a video's suffix is used,
    which tells ffmpeg the format of files without a header."""
    suffix = Path(name).suffix.lower()
    return folder / f"{stem}{suffix if is_video_name(name) and suffix.isascii() else ''}"


async def receive(request: "Request", path: Path, max_bytes: int) -> None:
    """Write the body of a request to `path`. Raises Refused, and leaves no file then."""
    _check_size(request.headers.get("content-length", "0"), max_bytes, path.parent)
    try:
        with path.open("xb") as file:
            await _copy(request, file.write, max_bytes)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise NoSpace(f"The server can't store the video: {error.strerror}.") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _check_size(declared: str, max_bytes: int, folder: Path) -> None:
    if not (declared.isascii() and declared.isdigit()):
        raise Broken("The request does not say how large the video is.")
    n_bytes = int(declared[:20])
    if n_bytes > max_bytes:
        raise TooLarge(
            f"The video has {shown_size(n_bytes)}; at most {shown_size(max_bytes)} are accepted."
        )
    if n_bytes + SPARE > shutil.disk_usage(folder).free:
        raise NoSpace("The disk of the server is too full for this video.")


async def _copy(request: "Request", write: Callable[[bytes], Any], max_bytes: int) -> None:
    from starlette.requests import ClientDisconnect

    n_bytes = 0
    chunks = request.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(chunks.__anext__(), PATIENCE)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            raise Broken(f"The upload stopped: no data for {PATIENCE} seconds.") from None
        except ClientDisconnect:
            raise Broken("The upload was cut off.") from None
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise TooLarge(f"The video is larger than {shown_size(max_bytes)}.")
        write(chunk)
