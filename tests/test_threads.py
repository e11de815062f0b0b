import threading

import pytest

from tests.commands import PATIENCE
from utils.threads import thread_pool


def test_what_has_not_begun_is_given_up():
    given_up = threading.Event()
    with pytest.raises(KeyError), thread_pool(1) as pool:
        pool.submit(given_up.wait, PATIENCE)
        waiting = pool.submit(int)
        waiting.add_done_callback(lambda _: given_up.set())
        raise KeyError
    assert waiting.cancelled()


def test_a_block_that_ends_waits_for_all():
    with thread_pool() as pool:
        squares = pool.map(lambda number: number**2, range(10))
    assert list(squares) == [number**2 for number in range(10)]
