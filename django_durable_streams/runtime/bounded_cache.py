"""A dict of results that can be computed again, with a limit on its entries and on the bytes of its keys.

Clients choose many of these keys: tokens, cookies, headers. Without limits a client could fill the memory. The module
knows nothing of streams, and nothing of the results.

An optimisation: a hit replaces a signature check, a CSRF check or a query by one dict lookup.

- Invariant: the cache never holds more than `max_entries` entries, nor more than `max_bytes` bytes of keys.
- Why it holds: only `put` adds entries, and it drops the oldest ones under a lock until both limits hold.
- Cost: `get` is the method of the dict itself, so a hit takes no lock and no call of Python code. For this reason the
  order is the order of insertion, not of use: a hit changes nothing. `cachetools.FIFOCache` has the same order, but its
  `get` is Python code: it takes twice as long, and four times as long as the `get` of a dict.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A first-in, first-out cache. Safe to use from any thread.

    Args:
        max_entries: the largest number of entries.
        max_bytes: the largest sum of the sizes of all keys, in bytes. A key that is larger is not stored. None: the
            keys have a limit of their own, and only entries count.
        size_of: returns the size of a key, in bytes or characters. It must return the same for equal keys.

    `get(key)` and `get(key, default)` are the methods of a dict.
    """

    __slots__ = ("_bytes", "_entries", "_lock", "_max_bytes", "_max_entries", "_size_of", "get")

    def __init__(
        self, max_entries: int, *, max_bytes: int | None = None, size_of: Callable[[K], int] = lambda key: 0
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self.get = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V) -> None:
        """Store a value as the newest entry. The oldest entries make room for it."""
        size = self._size_of(key)
        limit = self._max_bytes
        with self._lock:
            self._drop(key)
            if limit is not None and size > limit:
                return
            while self._entries and (
                len(self._entries) >= self._max_entries or (limit is not None and self._bytes + size > limit)
            ):
                self._drop(next(iter(self._entries)))
            self._entries[key] = value
            self._bytes += size

    def pop(self, key: K) -> None:
        """Drop an entry if it is there."""
        with self._lock:
            self._drop(key)

    def drop_where(self, matches: Callable[[V], bool]) -> None:
        """Drop all entries whose value matches."""
        with self._lock:
            for key in [key for key, value in self._entries.items() if matches(value)]:
                self._drop(key)

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _drop(self, key: K) -> None:
        if key in self._entries:
            del self._entries[key]
            self._bytes -= self._size_of(key)
