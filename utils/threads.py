"""A thread pool that drops queued work on an error."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def thread_pool(n_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool, by default with one thread per core.

    If the block fails or is interrupted, work that has not begun is cancelled; the pool's own
    `with` would finish it first.
    """
    pool = ThreadPoolExecutor(n_threads or os.cpu_count() or 1)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
