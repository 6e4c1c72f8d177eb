"""An honest guess of the time that is left."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

WARM_UP = 2  # first steps are slower: memory is laid out, kernels are chosen


class Clock:
    """Times of steps and of periodic work. Steps and saves, samples and validations are counted apart."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=50)
        self._seen = 0
        self._tasks: dict[str, list[float]] = defaultdict(list)

    def step(self, seconds: float) -> None:
        self._seen += 1
        if self._seen > WARM_UP:
            self._steps.append(seconds)

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._tasks[name].append(time.perf_counter() - start)

    def seconds_left(self, steps: int, tasks: dict[str, int]) -> float | None:
        """For so many more steps and runs of each task; None until a step after warm-up was timed.

        A task that has not run yet counts as nothing, so the guess grows once when it first runs.
        """
        if not self._steps:
            return None
        known = {name: statistics.median(times) for name, times in self._tasks.items()}
        return steps * statistics.median(self._steps) + sum(known.get(name, 0.0) * count for name, count in tasks.items())
