"""Loader processes: start them, notice when one dies, and end them."""

import errno
import logging
import multiprocessing.connection
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from engine.cpu_memory import give_back
from errors import UserError
from utils.interruption import SIGNALS
from utils.limits import most_open_files

Key = TypeVar("Key")
Batch = TypeVar("Batch")

PER_CORE = 16  # workers; with this many per core, they wait for a disk or network if at all
FILES_EACH = 8  # open in the main process per worker of training and of validation
OTHER_FILES = 128  # open files of a process besides those: libraries, devices, pictures
# Blocked while workers start.
BLOCKED = [*SIGNALS] if sys.platform == "win32" else [*SIGNALS, signal.SIGCHLD]
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
OUT_OF_FILES_TEXTS = ("Too many open files", "received 0 items of ancdata")
OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "Cannot allocate memory")
BY_WORKER = "in DataLoader worker process"  # of errors that torch raises again
HOW_TO_RESUME = "earlier checkpoints are intact, --resume_path auto continues from them"
CAUSES: Mapping[str, str] = {
    "SIGKILL": "probably out of memory: lower --n_threads or the batch size",
    "SIGBUS": "a file was truncated while in use, or /dev/shm is full (docker run --shm-size=8g)",
}

log = logging.getLogger(__name__)


@cache
def usable_workers(n_wanted: int) -> int:
    """Return `n_wanted`, or as many workers as this machine can start, with a warning."""
    n_files = most_open_files()
    bounds = {f"{PER_CORE} for each core": PER_CORE * (os.cpu_count() or 1)}
    if n_files is not None:
        room = f"the limit of {n_files} open files (ulimit -n)"
        bounds[room] = max(0, n_files - OTHER_FILES) // FILES_EACH
    reason, most = min(bounds.items(), key=lambda bound: bound[1])
    if n_wanted <= most:
        return n_wanted
    log.warning("--n_threads: using %d loader processes instead of %d: %s", most, n_wanted, reason)
    return most


class Terminated(Exception):
    """SIGTERM ended workers; usually it was sent to all processes of the run."""


class Workers(Generic[Key, Batch]):
    """Batches of `dataset`, loaded in advance by `n_workers` processes, or by this one if 0.

    Workers start with the first pass and stay until close(). If SIGTERM ends them, this process
    completes the pass, so that an interrupted run reaches a point where it can save. If anything
    else ends one, or files or memory run out, a pass raises UserError.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        keys: Iterable[list[Key]],
        collate: Callable[[Sequence[Any]], Batch],
        *,
        n_workers: int,
        send: Callable[[Sequence[Any]], Any] | None = None,
        pin_memory: bool = False,
    ) -> None:
        """`keys` yields the keys of each batch, on every pass. `send` replaces `collate` in
        workers; what it returns is unpickled here as a batch, or as an exception to raise."""
        self._dataset, self._keys, self._collate = dataset, keys, collate
        self._processes: _Processes | None = None
        with warnings.catch_warnings():  # usable_workers warns about too many
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._loader: DataLoader[Any] = DataLoader(
                dataset,
                batch_sampler=keys,
                num_workers=n_workers,
                collate_fn=send if send is not None and n_workers else collate,
                pin_memory=pin_memory,
                worker_init_fn=begin_worker,
                persistent_workers=n_workers > 0,
                generator=torch.Generator(),  # or loading would advance the global random state
            )

    def __iter__(self) -> Iterator[Batch]:
        n_given = 0
        try:
            for batch in self._fetched():
                n_given += 1
                yield batch
            self._check_complete(n_given)
        except Terminated:
            self.close()
            log.warning("loader processes were ended by SIGTERM; this pass continues without them")
            for keys in islice(self._keys, n_given, None):
                yield self._collate([self._dataset[key] for key in keys])

    def close(self) -> None:
        """End the workers; the next pass starts new ones."""
        processes, self._processes = self._processes, None
        if processes is not None:
            processes._shutdown_workers()

    def _check_complete(self, n_given: int) -> None:
        """Raise RuntimeError if the pass ended early: torch takes a StopIteration from the dataset
        for its end."""
        n_wanted = sum(1 for _ in self._keys)
        if n_given != n_wanted:
            raise RuntimeError(f"loading ended after {n_given} of {n_wanted} batches")

    def _fetched(self) -> Iterator[Batch]:
        if not self._loader.num_workers:
            yield from self._loader
            return
        with self._translate_errors():
            batches = self._begun()
        while True:
            with self._translate_errors():
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                if isinstance(batch, Exception):
                    raise batch
            yield batch

    def _begun(self) -> "_Processes":
        """Begin a pass, and start the workers if they are not running."""
        if self._processes is None:
            give_back()  # memory that forked workers would hold too
            multiprocessing.util.get_temp_dir()  # shared, so that a killed worker leaves none
            with _signals_blocked():
                self._processes = _Processes(self._loader)
        else:
            self._processes._reset(self._loader)
        return self._processes

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn errors of workers into UserError, or Terminated if SIGTERM ended some."""
        try:
            yield
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            # Of the connection, not of a worker's own, which torch raises again.
            is_broken = isinstance(error, ConnectionError | EOFError) and BY_WORKER not in str(
                error
            )
            if codes := self._exit_codes(timeout=60 if is_broken else 1):
                raise _error_of(codes) from None
            problem = _problem_of(error, has_started=self._processes is not None)
            if problem is None:
                raise
            raise UserError(problem) from None

    def _exit_codes(self, timeout: float) -> list[int]:
        """Return the exit codes of the workers that ended; negative if by a signal.

        The connection to a killed worker may break some time before it counts as ended: wait up to
        `timeout` seconds for one.
        """
        workers = () if self._processes is None else self._processes._workers
        ended = multiprocessing.connection.wait([w.sentinel for w in workers], timeout=timeout)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(timeout=60)
        return [worker.exitcode for worker in workers if worker.exitcode is not None]


class _Processes(_MultiProcessingDataLoaderIter):
    """torch's iterator, which can be ended explicitly: torch ends it when it is garbage-collected,
    but the traceback of an error may keep it alive. The attributes set here allow that even if
    starting some of the processes failed."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._shutdown, self._workers_status = True, [True] * loader.num_workers
        super().__init__(loader)


def _error_of(codes: Sequence[int]) -> Exception:
    """Return the exception for workers that ended with these exit codes."""
    others = [code for code in codes if code != -signal.SIGTERM]
    if not others:
        return Terminated()
    code = others[0]
    name = signal.Signals(-code).name if code < 0 else ""
    cause = CAUSES.get(name, "--n_threads 0 shows for which video")
    how = f"was killed by {name}" if name else f"exited with status {code}"
    return UserError(f"a loader process {how}: {cause}; {HOW_TO_RESUME}")


def _problem_of(error: Exception, *, has_started: bool) -> str | None:
    """Return a message for errors of torch or the system that the user can act on, or None."""
    number, text = getattr(error, "errno", None), str(error)
    if number in OUT_OF_FILES or any(words in text for words in OUT_OF_FILES_TEXTS):
        return "too many open files: raise the limit (ulimit -n) or lower --n_threads"
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY_TEXTS):
        advice = "lower --n_threads or the batch size"
        return f"a loader process ran out of memory: {advice}; {HOW_TO_RESUME}"
    if "AF_UNIX path too long" in text:
        return f"TMPDIR {tempfile.gettempdir()}: path too long for a socket; set a shorter one"
    if isinstance(error, OSError | RuntimeError) and not has_started:
        cause = getattr(error, "strerror", None) or error
        return f"loader processes can't be started: {cause}; lower --n_threads (0: no processes)"
    return None


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals while workers start: a new worker would handle them like the main process, and
    Python ignores exceptions during a fork.

    This also removes torch's SIGCHLD handler, which raises for a dead worker wherever the main
    process happens to be, even in a step or while saving. Without it, iterating over the batches
    raises, five seconds after they stop coming.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # not possible on Windows; elsewhere only the main thread gets signals
        return
    noted: list[int] = []
    before = {held: signal.getsignal(held) for held in BLOCKED}
    for held in SIGNALS:
        if callable(before[held]):
            signal.signal(held, lambda number, frame: noted.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)  # for this thread and the workers
    try:
        yield
    finally:
        for held, handler in before.items():
            signal.signal(held, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in noted:
            signal.raise_signal(number)


def begin_worker(worker: int) -> None:
    """Ignore Ctrl-C and SIGHUP in a worker, because the main process ends its workers; keep
    SIGTERM, with which multiprocessing ends them."""
    sys.excepthook = _report_unless_disconnected
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)


def _report_unless_disconnected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error, unless the main process has ended the connection.

    The thread of multiprocessing.resource_sharer, which passes tensors to the main process, calls
    this. An interrupted main process may end while it waits for one.
    """
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
