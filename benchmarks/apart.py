"""Work in a process of its own: its memory is the system's own way, and nothing of ours is set."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

Work = Callable[[], float]


@contextmanager
def apart(make: Callable[..., Work], *arguments: object) -> Iterator[Work]:
    """What `make(*arguments)` gives in a fresh process, to be called from here. All of them are
    pickled; the process rests between the calls."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments))
    process.start()
    there.close()

    def work() -> float:
        here.send(True)
        return here.recv()

    try:
        here.recv()
        yield work
    finally:
        here.close()
        process.join()


def _serve(connection: Connection, make: Callable[..., Work], arguments: tuple) -> None:
    work = make(*arguments)
    connection.send("ready")
    try:
        while connection.recv():
            connection.send(work())
    except EOFError:
        return
