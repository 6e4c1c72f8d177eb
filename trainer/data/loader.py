"""Loads ahead in threads; worker processes could not import a pack that ComfyUI loaded by path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(items: Iterable[T], load: Callable[[T], R], ahead: int = 4, threads: int = 2) -> Generator[R, None, None]:
    """`load(item)` for every item, in order; up to `ahead` further results are made while the consumer works on one.

    An exception in `load` is raised at its place in the order. Only the consumer's thread reads `items`, and nothing
    starts before the first `next`. Closing the generator (or an error) drops what waits and ends the threads.
    """
    assert ahead >= 1 and threads >= 1, f"ahead={ahead} and threads={threads} must be at least 1"
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="prefetch")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
