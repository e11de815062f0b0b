"""Run the server: HTTP in a thread, the classifier in the thread that lets the worker run."""

import logging
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from errors import UserError
from predict.classifier import Classifier
from serving.app import App, PageSettings
from serving.hub import Hub
from serving.worker import Settings, Worker

MISSING = "the server needs more packages: pip install starlette uvicorn"
PREFIX = "3d-resnets-serve-"  # of the temporary folder for uploads and results
LAST_ANSWERS = 1  # seconds for connections to end when the server stops

log = logging.getLogger("uvicorn.error")


def check_packages() -> None:
    """Raises UserError if the server's packages are missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError(MISSING) from None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address of this machine. Raises UserError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except (OSError, ValueError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or error
        remedy = "; choose another --port" if port else ""
        raise UserError(f"--host {host} --port {port}: can't listen: {cause}{remedy}") from None


def url_of(listening: socket.socket) -> str:
    """Return the address of the page, as seen from this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@contextmanager
def answering(app: Any, listening: socket.socket) -> Iterator[None]:
    """Answer requests in a thread inside the block. Raises UserError if it can't start."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http="h11",
        ws="none",
        loop="asyncio",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        log.addFilter(_drop)  # connections that are cut off now are no errors
        server.should_exit = True
        thread.join()
        log.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def serving(
    classifier: Classifier,
    page: PageSettings,
    settings: Settings,
    listening: socket.socket,
    hosts: Iterable[str],
) -> Iterator[Worker]:
    """Serve the page inside the block, which lets the worker run; uploads and results exist only
    that long. `hosts` are names under which the page may be opened."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        hub = Hub(Path(folder))
        worker = Worker(classifier, hub, settings)
        with answering(App(hub, page).asgi(hosts), listening):
            try:
                yield worker
            finally:
                hub.close()
