"""Lock a folder, so that one run at a time works in it."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError

LOCK = ".lock"

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, *, flag: str) -> Iterator[None]:
    """Lock the folder, which `flag` names, against a second run; the lock ends with this process in
    any case.

    Raises UserError if another process holds it. Without support by the system there is no lock.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"{folder}: the lock can't be written: {error.strerror}") from None
    try:
        # Not flock: loader workers would inherit its lock and hold it after a kill.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(handle)):
            raise BlockingIOError(errno.EAGAIN, "removed by the run that held it")
    except OSError as error:
        holder = os.read(handle, 200).decode(errors="replace").strip()
        os.close(handle)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.info("%s: can't be locked against a second run: %s", folder, error.strerror)
            yield
            return
        by = f" ({holder})" if holder else ""
        raise UserError(
            f"{flag} {folder}: another run is training there{by}: wait until it ends, or choose "
            "another folder"
        ) from None
    try:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
