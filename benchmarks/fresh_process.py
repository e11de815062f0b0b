"""Run work in a fresh process, whose allocator and threads have their default settings."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

Work = Callable[[], float]


@contextmanager
def in_fresh_process(make: Callable[..., Work], *arguments: object) -> Iterator[Work]:
    """Call `make(*arguments)` in a fresh process and yield a function that runs the result there.

    The arguments are pickled, and the process idles between calls. If it fails it prints the
    traceback, and the caller gets a RuntimeError.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments))
    process.start()
    there.close()

    def answer() -> float:
        try:
            return here.recv()
        except EOFError:
            raise RuntimeError(f"{make.__name__} failed, see the traceback above") from None

    def work() -> float:
        here.send(True)
        return answer()

    try:
        answer()
        yield work
    finally:
        process.terminate()  # it may be in the middle of a call
        process.join()
        here.close()


def _serve(connection: Connection, make: Callable[..., Work], arguments: tuple) -> None:
    work = make(*arguments)
    connection.send(0.0)
    while connection.recv():
        connection.send(work())
