"""Prefetch: order, errors, bounded look-ahead, and threads that end."""

from __future__ import annotations

import threading
import time

import pytest

from trainer.data.loader import prefetch


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize(("ahead", "threads"), [(1, 1), (2, 4), (8, 3), (100, 2)])
def test_order_is_kept(ahead, threads):
    def load(item):
        time.sleep(0.003 if item % 3 == 0 else 0)
        return item * item

    assert list(prefetch(range(20), load, ahead, threads)) == [item * item for item in range(20)]
    assert prefetch_threads() == []


def test_an_error_is_raised_at_its_place():
    def load(item):
        if item == 3:
            raise ValueError("three")
        return item

    results = prefetch(range(10), load, ahead=5, threads=3)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert prefetch_threads() == []


def test_no_more_than_ahead_is_loaded_early():
    begun = []
    results = prefetch(range(50), begun.append, ahead=3, threads=2)
    assert begun == []
    next(results)
    time.sleep(0.05)
    assert len(begun) == 4
    next(results)
    time.sleep(0.05)
    assert len(begun) == 5
    results.close()


def test_loading_goes_on_while_the_consumer_works():
    loaded = threading.Event()
    results = prefetch([0, 1], lambda item: loaded.set() if item else None, ahead=1, threads=1)
    next(results)
    assert loaded.wait(5)
    results.close()


def test_closing_ends_the_threads_and_drops_the_rest():
    begun = []
    results = prefetch(range(1000), begun.append, ahead=10, threads=2)
    next(results)
    results.close()
    assert prefetch_threads() == []
    assert len(begun) <= 11


def test_no_items():
    assert list(prefetch([], str)) == []
