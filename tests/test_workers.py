"""Loader processes that die, that cannot start, and that end with their loader."""

import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import threading
from multiprocessing import resource_sharer

import pytest
import torch
from torch.utils.data import Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from datasets import shared_memory as sharing
from datasets.shared_memory import CAN_SHARE, Parcel
from datasets.workers import Terminated, Workers, _error_of, usable_workers
from errors import UserError

KEYS = [[0, 1], [2, 3], [4, 5], [6, 7]]
BATCHES = [[0, 10], [20, 30], [40, 50], [60, 70]]


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    """torch looks for ended workers after 5 seconds without a batch; here after 0.2."""
    wait = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(wait, "__defaults__", (0.2,))


class Numbers(Dataset):
    """Returns ten times the key, and calls `event` in a worker at key 4."""

    def __init__(self, event=None):
        self.event = event

    def __getitem__(self, key):
        if key == 4 and self.event is not None and get_worker_info() is not None:
            self.event()
        return 10 * key


def numbers(event=None, n_workers=2, **more):
    return Workers(Numbers(event), KEYS, list, n_workers=n_workers, **more)


def end_by(number):
    return lambda: os.kill(os.getpid(), number)


def test_passes_and_close():
    loader = numbers()
    assert [list(loader), list(loader)] == [BATCHES, BATCHES]
    assert len(multiprocessing.active_children()) == 2
    loader.close()
    assert not multiprocessing.active_children()
    assert list(loader) == BATCHES  # as in the first pass
    loader.close()


def test_close_in_the_middle_of_a_pass():
    loader = numbers()
    batches = iter(loader)
    assert next(batches) == BATCHES[0]
    loader.close()
    assert not multiprocessing.active_children()


class Ending(Numbers):
    """Raises StopIteration at key 5, which torch takes for the end of the pass."""

    def __getitem__(self, key):
        if key == 5:
            raise StopIteration
        return super().__getitem__(key)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_pass_never_ends_early_in_silence(n_workers):
    loader = Workers(Ending(), KEYS, list, n_workers=n_workers)
    with pytest.raises(RuntimeError, match="ended after 2 of 4 batches"):
        list(loader)
    loader.close()


def fail_to_pass(error):
    """In a worker: let the thread that passes tensors to the main process meet an error."""

    def fail(connection, process):
        raise error

    sharer = resource_sharer._resource_sharer
    place = sharer.register(fail, lambda: None)
    with sharer.get_connection(place) as broken, contextlib.suppress(EOFError, ConnectionError):
        broken.recv()  # ends when the thread has closed the connection
    # It takes the next one after it has reported the error.
    next_one = sharer.register(lambda connection, process: connection.send("next"), lambda: None)
    with sharer.get_connection(next_one) as connection:
        connection.recv()


@pytest.mark.parametrize(
    ("error", "is_reported"), [(BrokenPipeError(), False), (ValueError(), True)]
)
def test_workers_report_no_connection_that_an_ending_main_process_closed(capfd, error, is_reported):
    loader = numbers(lambda: fail_to_pass(error))
    list(loader)
    loader.close()
    assert ("Traceback" in capfd.readouterr().err) == is_reported


def test_sigterm_to_workers_loses_no_batch(caplog):
    loader = numbers(end_by(signal.SIGTERM))
    assert list(loader) == BATCHES
    assert "this pass continues without them" in caplog.text
    loader.close()


def test_killed_worker_is_a_user_error():
    loader = numbers(end_by(signal.SIGKILL))
    with pytest.raises(
        UserError, match=r"was killed by SIGKILL: probably out of memory"
    ) as message:
        list(loader)
    assert len(str(message.value).splitlines()) == 1
    loader.close()
    assert not multiprocessing.active_children()


def test_error_messages_of_ended_workers():
    assert "exited with status 70: --n_threads 0 shows" in str(_error_of([0 - signal.SIGTERM, 70]))
    assert "killed by SIGBUS: a file was truncated while in use, or /dev/shm" in str(
        _error_of([-7])
    )
    assert isinstance(_error_of([-signal.SIGTERM] * 2), Terminated)


def test_worker_killed_between_passes():
    loader = numbers()
    assert list(loader) == BATCHES
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(UserError, match="SIGKILL"):
        list(loader)
    loader.close()


def test_errors_are_raised_only_while_iterating():
    """torch's SIGCHLD handler would raise anywhere in the main process, even during a save."""
    before = signal.getsignal(signal.SIGCHLD)
    loader = numbers()
    batches = iter(loader)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == before
    loader.close()


def test_workers_ignore_ctrl_c_and_a_closed_terminal():
    loader = numbers(lambda: [os.kill(os.getpid(), n) for n in (signal.SIGINT, signal.SIGHUP)])
    assert list(loader) == BATCHES
    loader.close()


@pytest.mark.parametrize("n_threads", [0, 1])
def test_ctrl_c_while_workers_start_is_not_lost(monkeypatch, n_threads):
    """Python ignores exceptions of signal handlers during a fork. Another thread may get the
    signal, as it is blocked in this one."""
    fork, end = os.fork, threading.Event()
    threads = [threading.Thread(target=end.wait, daemon=True) for _ in range(n_threads)]
    for thread in threads:
        thread.start()

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        return fork()

    monkeypatch.setattr(os, "fork", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loader = numbers()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(loader)
    finally:
        signal.signal(signal.SIGINT, before)
        loader.close()
        end.set()
        for thread in threads:
            thread.join()
    assert not multiprocessing.active_children()


def fail(number):
    def event():
        raise OSError(number, os.strerror(number))

    return event


def test_exceptions_of_workers_are_raised():
    loader = numbers(fail(errno.EMFILE))
    with pytest.raises(UserError, match=r"too many open files: .*ulimit -n"):
        list(loader)
    loader.close()
    loader = numbers(fail(errno.EIO))
    with pytest.raises(OSError, match=r"in DataLoader worker process"):  # a bug: with traceback
        list(loader)
    loader.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # from torch
@pytest.mark.skipif(not CAN_SHARE, reason="memory of its own is Linux's")
def test_too_long_temporary_folder(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    process = multiprocessing.current_process()  # caches the folder
    monkeypatch.setattr(process, "_config", process._config | {"tempdir": str(folder)})
    loader = Workers(Pictures(), KEYS, torch.cat, n_workers=1, send=pack)
    with pytest.raises(UserError, match="path too long for a socket"):
        list(loader)
    loader.close()


def test_workers_that_cannot_start(monkeypatch):
    fork, begun = os.fork, []

    def refuse():
        begun.append(True)
        if len(begun) > 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(UserError, match="can't be started: Resource temporarily unavailable"):
        list(numbers())


@pytest.mark.parametrize(
    ("n_files", "n_cores", "wanted", "usable", "reason"),
    [
        (20000, 4, 8, 8, ""),
        (20000, 4, 2000, 64, "16 for each core"),
        (256, 4, 32, 16, "256 open files"),
        (64, 4, 4, 0, "64 open files"),
        (resource.RLIM_INFINITY, 4, 64, 64, ""),
    ],
)
def test_usable_workers(monkeypatch, caplog, n_files, n_cores, wanted, usable, reason):
    usable_workers.cache_clear()
    monkeypatch.setattr(resource, "getrlimit", lambda what: (n_files, n_files))
    monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
    assert [usable_workers(wanted), usable_workers(wanted)] == [usable, usable]
    usable_workers.cache_clear()
    assert len(caplog.records) == bool(reason)
    assert reason in caplog.text


def pack(parts):
    return Parcel(pair, parts, "text", 7)


class Pictures(Dataset):
    def __getitem__(self, key):
        return torch.full((1, 3, 4), key, dtype=torch.uint8)


def pair(tensor, *rest):
    return tensor, rest


@pytest.mark.skipif(not CAN_SHARE, reason="memory of its own is Linux's")
def test_parcels_arrive_and_close_their_files():
    loader = Workers(Pictures(), KEYS, torch.cat, n_workers=2, send=pack)
    list(loader)
    before = os.listdir("/proc/self/fd")
    for keys, (tensor, rest) in zip(KEYS, loader, strict=True):
        assert tensor[:, 0, 0].tolist() == keys
        assert tensor.shape == (2, 3, 4)
        assert rest == ("text", 7)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    loader.close()


@pytest.mark.skipif(not CAN_SHARE, reason="memory of its own is Linux's")
def test_empty_parcel():
    unpack, arguments = pack([]).__reduce__()
    tensor, rest = unpack(*arguments)
    assert tensor.shape == (0,)
    assert rest == ("text", 7)


@pytest.mark.skipif(not CAN_SHARE, reason="memory of its own is Linux's")
def test_parcel_of_an_ended_sender_is_an_error():
    class Gone:
        def detach(self):
            raise ConnectionRefusedError

    assert isinstance(sharing._opened(pair, Gone(), (1,), 1), ConnectionRefusedError)
