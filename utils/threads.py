"""Work side by side in threads."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def thread_pool(n_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool, by default with a thread for each core. Where the block is left early, by an error or
    Ctrl-C, work that has not begun is given up; the pool's own `with` would do all of it first."""
    pool = ThreadPoolExecutor(n_threads or os.cpu_count() or 1)
    try:
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
