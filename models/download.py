"""Download hosted checkpoints once, into torch's cache, and check them before every use."""

import errno
import hashlib
import http.client
import logging
import os
import re
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from errors import UserError
from models.weights import HostedWeights, find_weights, weights_of_file
from utils.reading import shown

MIRROR = "WEIGHTS_MIRROR"  # environment variable
SECONDS = 30.0  # without an answer, or any bytes, from the host
PART = ".download-"  # start of the names of folders with unfinished downloads
STALE = 24 * 3600.0  # seconds after which an unfinished download is deleted
BLOCK = 1 << 20
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}

log = logging.getLogger("progress")


def local_file(path: Path) -> tuple[Path, HostedWeights | None]:
    """Return the file of a checkpoint that may be given as the name of hosted weights, and which
    hosted weights it is, if any.

    Downloads it where it is not in the cache yet. Raises UserError if the name is unknown or the
    file cannot be had intact.
    """
    if (weights := find_weights(path)) is not None:
        return fetch(weights), weights
    weights = weights_of_file(path.name)
    if weights is None or not path.is_file():
        return path, None
    if (digest := _sha256(path)).startswith(weights.sha256):
        return path, weights
    log.warning("%s: %s", path, _mismatch(weights, digest))
    return path, None


def fetch(weights: HostedWeights) -> Path:
    """Return the file of hosted weights in torch's cache, downloaded if it is missing.

    Its SHA-256 is checked each time. Raises UserError where it cannot be downloaded or is damaged,
    with where to put the file.
    """
    path = cached_path(weights)
    if os.path.lexists(path):
        return _checked(weights, path)
    url = address_of(weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(path.parent):
            if not os.path.lexists(path):  # another process may have been faster
                _download(weights, url, path)
    except OSError as error:
        raise UserError(
            f"{weights.name}: can't be saved in {path.parent}: {error.strerror or error}; set "
            "TORCH_HOME to a folder with room that you can write to"
        ) from None
    return _checked(weights, path)


def cached_path(weights: HostedWeights) -> Path:
    """Return where torch.hub keeps the file, without importing torch, which takes seconds."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    # Unlike Path.expanduser no error for a user without a home; torch takes "~" as a folder then.
    return Path(os.path.expanduser(home), "hub", "checkpoints", weights.file)


def address_of(weights: HostedWeights) -> str:
    """Return the URL to download from, with $WEIGHTS_MIRROR in place of the host's address.

    Raises UserError for a mirror that is no such address.
    """
    mirror = os.environ.get(MIRROR, "")
    if not mirror:
        return weights.url
    if not (mirror.isascii() and re.fullmatch(r"https?://[^\s@?#]+", mirror)):
        raise UserError(
            f"{MIRROR}={shown(mirror)}: must be an address such as https://mirror.example"
        )
    return mirror.rstrip("/") + urlsplit(weights.url).path


def _download(weights: HostedWeights, url: str, path: Path) -> None:
    """Download to a folder of its own beside `path`, then rename. Raises OSError where the disk is
    at fault, and UserError for everything else."""
    import torch.hub

    _delete_stale(path.parent)
    with tempfile.TemporaryDirectory(prefix=PART, dir=path.parent) as folder:
        part = Path(folder, path.name)
        size = f", {weights.megabytes} MB" if weights.megabytes else ""
        log.info("%s: downloading %s to %s%s", weights.name, url, path, size)
        try:
            with _timeout(SECONDS):
                is_shown = sys.stderr is not None and sys.stderr.isatty()
                torch.hub.download_url_to_file(url, str(part), weights.sha256, progress=is_shown)
        except RuntimeError as error:  # torch's for another hash
            if (match := re.search(r'got "(\w+)"', str(error))) is None:
                raise
            raise UserError(
                f"{weights.name}: the download from {url} was cut short, or is another file: "
                f"{_mismatch(weights, match[1])}. Try again, or {_by_hand(weights, path)}"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if _is_of_disk(error):
                raise
            cause = _cause(error)
            raise UserError(
                f"{weights.name}: can't be downloaded from {url}: {cause}. Without network, "
                f"{_by_hand(weights, path)}; or set {MIRROR} to the address of a mirror"
            ) from None
        os.replace(part, path)


def _is_of_disk(error: Exception) -> bool:
    # The numbers of ssl's errors are its own, not those of the system.
    of_network = urllib.error.URLError | ConnectionError | TimeoutError | ssl.SSLError
    is_of_network = isinstance(error, of_network)
    return isinstance(error, OSError) and not is_of_network and error.errno in DISK_ERRORS


def _cause(error: Exception) -> str:
    """Describe an error of the network in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the host answers {error.code} {error.reason}".strip()
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer for {SECONDS:g} s"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _by_hand(weights: HostedWeights, path: Path) -> str:
    return f"get {weights.url} on another machine and put it at {path}"


def _checked(weights: HostedWeights, path: Path) -> Path:
    """Return `path` if it is the file of `weights`. Raises UserError otherwise."""
    try:
        digest = _sha256(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from None
    if not digest.startswith(weights.sha256):
        raise UserError(
            f"{path}: damaged: {_mismatch(weights, digest)}. Delete it to download it again"
        )
    return path


def _mismatch(weights: HostedWeights, digest: str) -> str:
    return f"its SHA-256 begins with {digest[:8]}, that of {weights.name} with {weights.sha256}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for other processes that download into `folder`, such as those of a distributed run.

    Where folders cannot be locked, as on Windows, each downloads its own copy, and the last stays.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: waiting for another process that downloads", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # some network file systems
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Limit the waiting for a host, for which torch.hub has no argument."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _delete_stale(folder: Path) -> None:
    """Delete what killed processes left half downloaded."""
    for part in folder.glob(f"{PART}*"):
        try:
            is_stale = time.time() - part.stat().st_mtime > STALE
        except OSError:
            continue
        if is_stale:
            shutil.rmtree(part, ignore_errors=True)
