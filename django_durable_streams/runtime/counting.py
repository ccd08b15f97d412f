"""Numbers about the work of this process, which cost next to nothing while they are counted.

The invariant: each number is changed by one thread only, so no increment is lost and none waits for a lock. A reader
copies the numbers of all threads, and adds them up. A copy of a dict or a list is one step of the interpreter.

Knows neither streams nor those who read the numbers.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any, Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K")
T = TypeVar("T")

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Bounds for times, in seconds."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Bounds for the number of tasks in a batch."""


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """A histogram at one moment.

    Attributes:
        bounds: the upper bounds of the buckets, each of them included, without the last bucket's, which has none.
        counts: the number of values in each bucket, one more than there are bounds.
        total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean of all values, 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket in which a share of the values ends, such as 0.99. 0: no values.

        Values in the last bucket count as the highest bound.
        """
        wanted, seen = share * self.count, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound if seen else 0.0
        return self.bounds[-1]


class Histogram:
    """Counts values in buckets. One thread observes."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def value(self) -> HistogramValue:
        """Return the present numbers. Safe to call from any thread."""
        return HistogramValue(self._bounds, tuple(self._counts), self._total)


def add_up(histograms: Iterable[Histogram], bounds: tuple[float, ...]) -> HistogramValue:
    """Return the sum of histograms with the same bounds."""
    values: Sequence[HistogramValue] = [histogram.value() for histogram in histograms]
    counts = [sum(column) for column in zip(*(value.counts for value in values), strict=True)]
    return HistogramValue(bounds, tuple(counts or [0] * (len(bounds) + 1)), sum(value.total for value in values))


class BatchNumbers:
    """The batches of one batch worker: how many tasks they had, and how long they took. Its thread counts."""

    __slots__ = ("seconds", "sizes")

    def __init__(self) -> None:
        self.sizes = Histogram(SIZES)
        self.seconds = Histogram(SECONDS)


class PerThread(Generic[T]):
    """One object for each thread that asks, such as a histogram.

    A thread's object stays when the thread has ended, and a later thread with the same number goes on with it. So there
    are as many objects as there were threads at once.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._by_thread: dict[int, T] = {}
        _all.add(self)

    def here(self) -> T:
        """Return the object of the calling thread. No other thread may change it."""
        value = self._by_thread.get(get_ident())
        if value is None:
            value = self._by_thread.setdefault(get_ident(), self._make())
        return value

    def everywhere(self) -> list[T]:
        """Return the objects of all threads, for reading."""
        return list(self._by_thread.values())

    def forget(self) -> None:
        """Drop all objects: this process is a fork, whose parent has counted."""
        self._by_thread.clear()


def _new_counts() -> defaultdict[Any, int]:
    return defaultdict(int)


class Counts(PerThread["defaultdict[K, int]"], Generic[K]):
    """Counts by key. Only `add`, or a change of the dict of `here`, counts."""

    def __init__(self) -> None:
        super().__init__(_new_counts)

    def add(self, key: K, count: int = 1) -> None:
        """Count something. Safe to call from any thread."""
        self.here()[key] += count

    def totals(self) -> dict[K, int]:
        """Return the sums over all threads."""
        sums: dict[K, int] = {}
        for counts in self.everywhere():
            for key, count in counts.copy().items():
                sums[key] = sums.get(key, 0) + count
        return sums


_all: WeakSet[PerThread[Any]] = WeakSet()


def _forget_all() -> None:
    for numbers in _all:
        numbers.forget()


os.register_at_fork(after_in_child=_forget_all)
