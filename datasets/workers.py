"""Loader processes: started, noticed when they are lost, and ended where their use ends."""

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

PER_CORE = 16  # workers of which each core has that many wait for a disk or a network, if anything
FILES_EACH = 8  # that the main process holds open for a worker of training and one of validation
OTHER_FILES = 128  # that a process may hold open beside those: libraries, devices, pictures
HELD = [*SIGNALS] if sys.platform == "win32" else [*SIGNALS, signal.SIGCHLD]  # of new workers
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
OUT_OF_FILES_TEXTS = ("Too many open files", "received 0 items of ancdata")
OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "Cannot allocate memory")
GO_ON = "earlier checkpoints are intact, --resume_path auto continues from them"
CAUSES: Mapping[str, str] = {
    "SIGKILL": "memory ran out, most likely: lower --n_threads or the batch size",
    "SIGBUS": "a file it read was cut short, or /dev/shm is full (docker run --shm-size=8g)",
}

log = logging.getLogger(__name__)


@cache
def usable_workers(n_wanted: int) -> int:
    """At most as many workers as this machine can start; a warning tells where that is fewer."""
    n_files = most_open_files()
    bounds = {f"{PER_CORE} for each core": PER_CORE * (os.cpu_count() or 1)}
    if n_files is not None:
        room = f"the limit of {n_files} open files (ulimit -n)"
        bounds[room] = max(0, n_files - OTHER_FILES) // FILES_EACH
    reason, most = min(bounds.items(), key=lambda bound: bound[1])
    if n_wanted <= most:
        return n_wanted
    log.warning("--n_threads: %d loader processes instead of %d: %s", most, n_wanted, reason)
    return most


class Terminated(Exception):
    """SIGTERM has ended workers: as a rule it went to all processes of the run."""


class Workers(Generic[Key, Batch]):
    """Batches of `dataset`, made ahead of time by `n_workers` processes; with none, by this one.

    They start with the first pass and stay until close(). A pass that loses workers to SIGTERM is
    brought to its end by this process, so that a run which was asked to end reaches a point where
    it can save; whatever else ends one raises UserError, as does a lack of files or memory.
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
        """`keys` are those of each batch, anew for every pass. `send` takes the place of `collate`
        in workers: what it returns is unpickled here, as a batch or as an exception to raise."""
        self._dataset, self._keys, self._collate = dataset, keys, collate
        self._processes: _Processes | None = None
        with warnings.catch_warnings():  # usable_workers says where there are too many
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._loader: DataLoader[Any] = DataLoader(
                dataset,
                batch_sampler=keys,
                num_workers=n_workers,
                collate_fn=send if send is not None and n_workers else collate,
                pin_memory=pin_memory,
                worker_init_fn=begin_worker,
                persistent_workers=n_workers > 0,
                generator=torch.Generator(),  # its own, so that loading draws from no one else's
            )

    def __iter__(self) -> Iterator[Batch]:
        n_given = 0
        try:
            for batch in self._fetched():
                n_given += 1
                yield batch
        except Terminated:
            self.close()
            log.warning("loader processes were ended by SIGTERM: this pass goes on without them")
            for keys in islice(self._keys, n_given, None):
                yield self._collate([self._dataset[key] for key in keys])

    def close(self) -> None:
        """End the workers; the next pass starts new ones."""
        processes, self._processes = self._processes, None
        if processes is not None:
            processes._shutdown_workers()

    def _fetched(self) -> Iterator[Batch]:
        if not self._loader.num_workers:
            yield from self._loader
            return
        with self._explained():
            batches = self._begun()
        while True:
            with self._explained():
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                if isinstance(batch, Exception):
                    raise batch
            yield batch

    def _begun(self) -> "_Processes":
        """A pass of the workers, which are started if they are not there yet."""
        if self._processes is None:
            give_back()  # what workers that are forked now would hold, too
            multiprocessing.util.get_temp_dir()  # of all workers: one that is killed leaves none
            with _signals_held():
                self._processes = _Processes(self._loader)
        else:
            self._processes._reset(self._loader)
        return self._processes

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong with workers, as a UserError; Terminated if SIGTERM has ended some."""
        try:
            yield
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            if codes := self._exit_codes():
                raise _lost(codes) from None
            problem = _problem_of(error, has_started=self._processes is not None)
            if problem is None:
                raise
            raise UserError(problem) from None

    def _exit_codes(self) -> list[int]:
        """Those of the workers that have ended; negative where a signal did it."""
        workers = () if self._processes is None else self._processes._workers
        # The connection to one that is killed may break a moment before it counts as ended.
        ended = multiprocessing.connection.wait([w.sentinel for w in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(timeout=60)
        return [worker.exitcode for worker in workers if worker.exitcode is not None]


class _Processes(_MultiProcessingDataLoaderIter):
    """torch's own way of having batches made, which leaves no way to end it but to let it go: an
    error's traceback may hold on to it. Where some of the processes can't be started, it can be
    let go all the same."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._shutdown, self._workers_status = True, [True] * loader.num_workers
        super().__init__(loader)


def _lost(codes: Sequence[int]) -> Exception:
    """What to raise for workers that have ended with these exit codes."""
    others = [code for code in codes if code != -signal.SIGTERM]
    if not others:
        return Terminated()
    code = others[0]
    name = signal.Signals(-code).name if code < 0 else ""
    cause = CAUSES.get(name, "--n_threads 0 shows at which video")
    told = f"was killed by {name}" if name else f"ended with {code}"
    return UserError(f"a loader process {told}: {cause}; {GO_ON}")


def _problem_of(error: Exception, *, has_started: bool) -> str | None:
    """What the user can do about an error of torch's or the system's, or None."""
    number, text = getattr(error, "errno", None), str(error)
    if number in OUT_OF_FILES or any(words in text for words in OUT_OF_FILES_TEXTS):
        return "too many open files: raise the limit (ulimit -n) or lower --n_threads"
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY_TEXTS):
        return f"a loader process found no memory: lower --n_threads or the batch size; {GO_ON}"
    if "AF_UNIX path too long" in text:
        return (
            f"TMPDIR {tempfile.gettempdir()}: too long for the name of a socket; set a shorter one"
        )
    if isinstance(error, OSError | RuntimeError) and not has_started:
        cause = getattr(error, "strerror", None) or error
        return f"loader processes can't be started: {cause}; lower --n_threads (0: none)"
    return None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Inside, where workers are started, signals wait: a worker that has only just begun would
    handle them as the main process does, and Python ignores what is raised while it forks.

    torch's own handler of SIGCHLD is left out. It raises for a lost worker wherever the main
    process is just then, inside a step or while it saves; without it the pass of the batches does,
    five seconds after they stop coming.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # Windows can't; or signals go to another thread
        return
    noted: list[int] = []
    before = {held: signal.getsignal(held) for held in HELD}
    for held in SIGNALS:
        if callable(before[held]):
            signal.signal(held, lambda number, frame: noted.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)  # of this thread and of workers
    try:
        yield
    finally:
        for held, handler in before.items():
            signal.signal(held, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in noted:
            signal.raise_signal(number)


def begin_worker(worker: int) -> None:
    """Leave Ctrl-C and a terminal that is closed to the main process, which tells its workers when
    to end; SIGTERM ends a worker, as multiprocessing wants it at the end of a program."""
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
