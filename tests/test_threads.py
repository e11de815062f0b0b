import time

import pytest

from utils.threads import thread_pool


def test_what_has_not_begun_is_given_up():
    done = []

    def work(number):
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(KeyError), thread_pool(1) as pool:
        pool.map(work, range(100))
        raise KeyError
    assert len(done) < 100


def test_a_block_that_ends_waits_for_all():
    with thread_pool() as pool:
        squares = pool.map(lambda number: number**2, range(10))
    assert list(squares) == [number**2 for number in range(10)]
