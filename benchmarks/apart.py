"""Work in a process of its own, where nothing of ours is set: memory is the system's own way."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

Work = Callable[[], float]


@contextmanager
def apart(make: Callable[..., Work], *arguments: object) -> Iterator[Work]:
    """What `make(*arguments)` gives in a fresh process, to be called from here. All of them are
    pickled; the process rests between the calls. What it raises, it prints; here that is a
    RuntimeError."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments))
    process.start()
    there.close()

    def answer() -> float:
        try:
            return here.recv()
        except EOFError:
            raise RuntimeError(f"{make.__name__} failed in its process, as told above") from None

    def work() -> float:
        here.send(True)
        return answer()

    try:
        answer()
        yield work
    finally:
        process.terminate()  # whatever it does: nothing of it is waited for any more
        process.join()
        here.close()


def _serve(connection: Connection, make: Callable[..., Work], arguments: tuple) -> None:
    work = make(*arguments)
    connection.send(0.0)
    while connection.recv():
        connection.send(work())
