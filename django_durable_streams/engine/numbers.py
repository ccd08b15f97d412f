"""The numbers of the engine of one database: what its threads count, and `EngineStats`, a snapshot of all of them.

The numbers last for as long as the process, also if its engine ends and another one begins. Each is counted for a whole
batch, or by a thread that has it for itself (`runtime.counting`). Knows no request.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ..runtime.backlog import Backlog
from ..runtime.counting import SECONDS, SIZES, BatchNumbers, Counts, Histogram, HistogramValue, PerThread, add_up
from ..store.operations import Commit
from ..store.read.segment_cache import SegmentCache

if TYPE_CHECKING:
    from .watch import Watch

COMMITTER, TRANSACTION = "committer", "transaction"
"""The origins of appends: requests and writers, or transactions of Python callers."""

OWN, MESSAGE = "own", "message"
"""How the hub learns of a commit: from a thread of this process, or by a wake-up message."""


class Watched(Protocol):
    """A hub."""

    def watches(self) -> Sequence[Watch]:
        """Return the present watches."""


class HubNumbers:
    """What the hubs of one thread count."""

    __slots__ = ("lags", "polls", "polls_with_news")

    def __init__(self) -> None:
        self.polls = 0
        self.polls_with_news = 0
        self.lags = {OWN: Histogram(SECONDS), MESSAGE: Histogram(SECONDS)}


@dataclass(slots=True)
class TaskNumbers:
    """What the housekeeping thread counts for one of its tasks.

    Attributes:
        steps: the steps that had something to do.
        failures: the steps that failed.
        seconds: the time of all steps.
        done: what was done: a number of streams, of trims, or of chunks that were flushed or merged.
    """

    steps: int = 0
    failures: int = 0
    seconds: float = 0.0
    done: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The numbers of one engine in this process, at one moment. Counts begin with the process.

    Attributes:
        database: the alias of the database.
        process: the id of the process.
        appends, append_bytes: what was appended, by origin: `committer` for requests and writers, `transaction` for
            Python callers. The first data of a new stream counts as an append.
        commit_sizes, commit_seconds: the batches of the committers: their operations, and their time.
        read_sizes, read_seconds: the batches of the snapshot reader.
        waiting_operations, waiting_bytes, waiting_reads: what waits for these threads, or is at work there.
        live_readers: live readers by kind.
        watched_streams: streams with live readers, counted once for each event loop.
        wakeup_lags: the time from a commit, or from a wake-up message's sending, until live readers are notified.
        polls, polls_with_news: queries of watched streams, and those that found a commit without a wake-up.
        cache_hits, cache_misses: parts of pages that the segment cache had, or not.
        cache_bytes, cache_segments: the content of the segment cache.
        housekeeping: the work of housekeeping, by task.
    """

    database: str
    process: int
    appends: Mapping[str, int]
    append_bytes: Mapping[str, int]
    commit_sizes: HistogramValue
    commit_seconds: HistogramValue
    read_sizes: HistogramValue
    read_seconds: HistogramValue
    waiting_operations: int
    waiting_bytes: int
    waiting_reads: int
    live_readers: Mapping[str, int]
    watched_streams: int
    wakeup_lags: Mapping[str, HistogramValue]
    polls: int
    polls_with_news: int
    cache_hits: int
    cache_misses: int
    cache_bytes: int
    cache_segments: int
    housekeeping: Mapping[str, TaskNumbers]


class EngineNumbers:
    """What the threads of the engines of one database count.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self.hubs: PerThread[HubNumbers] = PerThread(HubNumbers)
        self.committers: list[BatchNumbers] = []
        self.readers: list[BatchNumbers] = []
        self.housekeeping: defaultdict[str, TaskNumbers] = defaultdict(TaskNumbers)
        self._appends: Counts[str] = Counts()
        self._bytes: Counts[str] = Counts()

    def count(self, commits: Iterable[Commit], origin: str) -> None:
        """Count what commits have appended. Safe to call from any thread."""
        appends = size = 0
        for commit in commits:
            growth = commit.tail - commit.start
            if growth:
                size += growth
                appends += len(commit.ends) or 1  # without ends, a large amount was appended in one step
        if size:
            self._appends.add(origin, appends)
            self._bytes.add(origin, size)

    def stats(
        self,
        operations: Iterable[Backlog] = (),
        reads: Iterable[Backlog] = (),
        hubs: Iterable[Watched] = (),
        cache: SegmentCache | None = None,
    ) -> EngineStats:
        """Return all numbers.

        Args:
            operations: the backlogs of the committers.
            reads: the backlogs of the snapshot reader.
            hubs: the hubs of all event loops.
            cache: the segment cache.
        """
        counted = self.hubs.everywhere()
        backlogs, watches = list(operations), [watch for hub in hubs for watch in hub.watches()]
        readers = Counter(_kind(listener) for watch in watches for listener in list(watch.listeners))
        return EngineStats(
            database=self.using,
            process=os.getpid(),
            appends=self._appends.totals(),
            append_bytes=self._bytes.totals(),
            commit_sizes=add_up([numbers.sizes for numbers in self.committers], SIZES),
            commit_seconds=add_up([numbers.seconds for numbers in self.committers], SECONDS),
            read_sizes=add_up([numbers.sizes for numbers in self.readers], SIZES),
            read_seconds=add_up([numbers.seconds for numbers in self.readers], SECONDS),
            waiting_operations=sum(backlog.tasks for backlog in backlogs),
            waiting_bytes=sum(backlog.bytes for backlog in backlogs),
            waiting_reads=sum(backlog.tasks for backlog in reads),
            live_readers=readers,
            watched_streams=len(watches),
            wakeup_lags={kind: add_up([hub.lags[kind] for hub in counted], SECONDS) for kind in (OWN, MESSAGE)},
            polls=sum(hub.polls for hub in counted),
            polls_with_news=sum(hub.polls_with_news for hub in counted),
            cache_hits=cache.hits if cache is not None else 0,
            cache_misses=cache.misses if cache is not None else 0,
            cache_bytes=cache.size if cache is not None else 0,
            cache_segments=cache.count if cache is not None else 0,
            housekeeping={task: replace(numbers) for task, numbers in self.housekeeping.copy().items()},
        )

    def forget(self) -> None:
        """Begin anew: this process is a fork, whose parent has counted."""
        self.committers.clear()
        self.readers.clear()
        self.housekeeping.clear()


def _kind(listener: object) -> str:
    return str(getattr(listener, "kind", "other"))


_by_database: dict[str, EngineNumbers] = {}


def numbers_for(using: str) -> EngineNumbers:
    """Return the numbers of a database. Transactions of Python callers count there without an engine, too."""
    numbers = _by_database.get(using)
    return numbers if numbers is not None else _by_database.setdefault(using, EngineNumbers(using))


def all_numbers() -> list[EngineNumbers]:
    """Return the numbers of all databases to which this process has appended, or for which it has had an engine."""
    return list(_by_database.values())


def _forget_all() -> None:
    for numbers in _by_database.values():
        numbers.forget()


os.register_at_fork(after_in_child=_forget_all)
