"""How streams have grown lately: which of them have so many chunks that these are to be merged, and what is in them.

The index of the chunks grows until they are merged, and the larger it is, the more of it each commit writes anew. To
merge them is to read them first, which a busy process has no time for where the database works on the process's own
(SQLite). So one that has fallen behind remembers what it appends, and puts the chunks of that together without reading
them, those of all streams at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from threading import Lock

from ..store.compaction import Run
from ..store.operations import Commit

MANY = 256
"""Commits to a stream after which its chunks are merged, however busy it is."""

MANY_RUNS = 64
"""Chunks of a stream that were put together from memory, after which these are merged in turn."""

SEVERAL = 16
"""Chunks of a stream that are merged once nothing comes any more, or nothing can."""

QUIET_SECONDS = 2.0
"""How long nothing has come to a quiet stream."""

MAX_COUNTED = 10_000
"""Streams that are counted at a time."""

BACKLOG = 100_000
"""Chunks that wait to be merged, with which a process becomes busy. Until there are so many, their index is small."""

TOGETHER = 8192
"""Commits of a busy process, to whatever streams, after which their chunks are put together: they lie side by side."""

FEW = 4
"""Remembered commits to a stream with which it is left out of that."""

SMALL_BYTES = 1024
"""Data of a commit that is remembered. To merge larger ones is not urgent."""

RUN_BYTES = 256 * 1024
"""Data of a stream that is remembered at the most."""

MAX_BYTES = 8 * 1024 * 1024
"""Memory for what is remembered, about. Half of it is as much as is worth a transaction."""

APPEND_BYTES = 80
"""Memory for an append besides its data, about."""


class _Growth:
    """A stream's chunks since they were merged last."""

    __slots__ = ("chunks", "last", "run", "runs")

    def __init__(self) -> None:
        self.chunks = 0
        self.runs = 0
        """Those of them that were put together from memory."""
        self.last = 0.0
        self.run: Run | None = None


class GrowthLog:
    """Counts the commits of this process, and remembers what they appended. Safe to use from any thread.

    Args:
        remembers: whether to remember.
    """

    def __init__(self, *, remembers: bool) -> None:
        self._remembers = remembers
        self._lock = Lock()
        self._streams: dict[int, _Growth] = {}
        self._chunks = 0
        self._busy_at: float | None = None
        """When this process had last become busy, or had put chunks together since; None: it is not busy."""
        self._crowded: set[int] = set()
        self._since = 0
        self._bytes = 0

    def count(self, commits: Iterable[Commit]) -> bool:
        """Take note of commits, each of them a chunk; return whether something is to be merged now."""
        now = time.monotonic()
        due = False
        with self._lock:
            for commit in commits:
                if commit.removed:
                    self._forget(commit.stream_id)
                elif commit.ends:
                    growth = self._streams.get(commit.stream_id)
                    if growth is None:
                        growth = self._streams[commit.stream_id] = _Growth()
                    growth.chunks += 1
                    growth.last = now
                    self._chunks += 1
                    if self._busy_at is not None and commit.appends and commit.tail - commit.start <= SMALL_BYTES:
                        self._remember(growth, commit)
                    if growth.chunks - growth.runs >= MANY or (commit.closed and growth.chunks >= SEVERAL):
                        self._crowded.add(commit.stream_id)
                        due = True
            while len(self._streams) > MAX_COUNTED:
                self._forget(next(iter(self._streams)))
            if self._remembers and self._busy_at is None and self._chunks >= BACKLOG:
                self._busy_at = now
            return due or self._is_much()

    def note(self, stream_ids: set[int]) -> None:
        """Take note of streams that a read has found to have many chunks."""
        with self._lock:
            self._crowded |= stream_ids

    def take_runs(self) -> list[Run]:
        """Return the chunks to put together from memory now, in the order of their streams."""
        now = time.monotonic()
        with self._lock:
            if not self._is_much():
                if self._busy_at is not None and self._busy_at <= now - QUIET_SECONDS:
                    self._busy_at = None
                    self._drop_all()
                return []
            self._busy_at = now
            self._since = 0
            runs = []
            for _, growth in sorted(self._streams.items()):
                if growth.run is not None and growth.run.chunks >= FEW:
                    runs.append(growth.run)
                    self._drop(growth)
            if self._is_much():  # of streams with few commits each
                self._drop_all()
            return runs

    def put_together(self, runs: Iterable[Run]) -> None:
        """Take note of runs that are one chunk each now."""
        with self._lock:
            for run in runs:
                growth = self._streams.get(run.stream_id)
                if growth is not None and growth.chunks >= run.chunks:  # and not counted anew meanwhile
                    growth.chunks -= run.chunks - 1
                    self._chunks -= run.chunks - 1
                    growth.runs += 1
                    if growth.runs >= MANY_RUNS:
                        self._crowded.add(run.stream_id)

    def take_crowded(self) -> set[int]:
        """Return the streams whose chunks are to be merged now: those with many, and quiet ones with several."""
        quiet_since = time.monotonic() - QUIET_SECONDS
        with self._lock:
            quiet = [stream_id for stream_id, growth in self._streams.items() if growth.last <= quiet_since]
            crowded, self._crowded = self._crowded, set()
            crowded.update(stream_id for stream_id in quiet if self._streams[stream_id].chunks >= SEVERAL)
            for stream_id in [*quiet, *crowded]:
                self._forget(stream_id)
            return crowded

    def _is_much(self) -> bool:
        return self._since >= TOGETHER or self._bytes >= MAX_BYTES // 2

    def _remember(self, growth: _Growth, commit: Commit) -> None:
        self._since += 1
        run = growth.run
        if run is not None and (run.end != commit.start or commit.tail - run.start > RUN_BYTES):
            self._drop(growth)
            run = None
        if self._bytes > MAX_BYTES:
            self._drop(growth)
            return
        if run is None:
            run = growth.run = Run(commit.stream_id, commit.start, 0, [], [])
        run.chunks += 1
        run.appends += commit.appends
        run.ends += commit.ends
        self._bytes += _memory(commit.start, commit.ends)

    def _drop(self, growth: _Growth) -> None:
        if growth.run is not None:
            self._bytes -= _memory(growth.run.start, growth.run.ends)
            growth.run = None

    def _drop_all(self) -> None:
        self._since = 0
        for growth in self._streams.values():
            self._drop(growth)

    def _forget(self, stream_id: int) -> None:
        growth = self._streams.pop(stream_id, None)
        if growth is not None:
            self._chunks -= growth.chunks
            self._drop(growth)


def _memory(start: int, ends: Sequence[int]) -> int:
    """Return how much memory appends take from a position on, about."""
    return ends[-1] - start + APPEND_BYTES * len(ends)
