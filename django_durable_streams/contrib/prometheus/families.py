"""The metrics, made of the numbers of this process. Knows nothing of how they are shown, and needs no package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from ...engine.numbers import EngineStats, TaskNumbers
from ...runtime.counting import HistogramValue
from ...stats import ProcessStats

PREFIX = "durable_streams_"


class Kind(Enum):
    """The kinds of metrics, as Prometheus names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


Value = float | HistogramValue


class Family(NamedTuple):
    """A metric with all its series.

    Attributes:
        name: the name, without the `_total` of a counter.
        help: one sentence.
        labels: the names of its labels.
        series: the values by those of the labels.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    series: list[tuple[tuple[str, ...], Value]]


class _OfEngine(NamedTuple):
    """A metric of an engine: its name, its help, the label beside `database` if there is one, and its values."""

    name: str
    kind: Kind
    help: str
    label: str | None
    values: Callable[[EngineStats], Value | Mapping[str, Value]]


def _tasks(attribute: str) -> Callable[[EngineStats], Mapping[str, Value]]:
    def values(engine: EngineStats) -> Mapping[str, Value]:
        tasks: Iterable[tuple[str, TaskNumbers]] = engine.housekeeping.items()
        return {task: getattr(numbers, attribute) for task, numbers in tasks}

    return values


_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

_OF_ENGINE = (
    _OfEngine("appends", _COUNTER, "Appends that were committed.", "origin", lambda engine: engine.appends),
    _OfEngine("append_bytes", _COUNTER, "Bytes that were appended.", "origin", lambda engine: engine.append_bytes),
    _OfEngine(
        "commit_batch_size", _HISTOGRAM, "Operations in a committer's batch.", None, lambda engine: engine.commit_sizes
    ),
    _OfEngine("commit_seconds", _HISTOGRAM, "Time of a committer's batch.", None, lambda engine: engine.commit_seconds),
    _OfEngine("read_batch_size", _HISTOGRAM, "Reads in a batch.", None, lambda engine: engine.read_sizes),
    _OfEngine("read_seconds", _HISTOGRAM, "Time of a batch of reads.", None, lambda engine: engine.read_seconds),
    _OfEngine("waiting_operations", _GAUGE, "Operations that wait for a commit.", None, lambda e: e.waiting_operations),
    _OfEngine("waiting_bytes", _GAUGE, "Bytes of these operations.", None, lambda engine: engine.waiting_bytes),
    _OfEngine("waiting_reads", _GAUGE, "Reads that wait for their batch.", None, lambda engine: engine.waiting_reads),
    _OfEngine("live_readers", _GAUGE, "Readers that wait for new data.", "kind", lambda engine: engine.live_readers),
    _OfEngine("watched_streams", _GAUGE, "Streams with live readers.", None, lambda engine: engine.watched_streams),
    _OfEngine(
        "wakeup_lag_seconds",
        _HISTOGRAM,
        "Time from a commit or a wake-up message to the live readers.",
        "source",
        lambda engine: engine.wakeup_lags,
    ),
    _OfEngine("polls", _COUNTER, "Queries of watched streams.", None, lambda engine: engine.polls),
    _OfEngine(
        "polls_with_news", _COUNTER, "Polls that found a commit first.", None, lambda engine: engine.polls_with_news
    ),
    _OfEngine("cache_hits", _COUNTER, "Parts of pages in the cache.", None, lambda engine: engine.cache_hits),
    _OfEngine("cache_misses", _COUNTER, "Parts of pages not in the cache.", None, lambda engine: engine.cache_misses),
    _OfEngine("cache_bytes", _GAUGE, "Memory of the segment cache.", None, lambda engine: engine.cache_bytes),
    _OfEngine("cache_segments", _GAUGE, "Segments in the cache.", None, lambda engine: engine.cache_segments),
    _OfEngine("housekeeping_steps", _COUNTER, "Steps with something to do.", "task", _tasks("steps")),
    _OfEngine("housekeeping_failures", _COUNTER, "Steps that failed.", "task", _tasks("failures")),
    _OfEngine("housekeeping_seconds", _COUNTER, "Time of the steps.", "task", _tasks("seconds")),
    _OfEngine("housekeeping_done", _COUNTER, "Streams, trims or chunks that are done.", "task", _tasks("done")),
)


def families(stats: ProcessStats) -> Iterator[Family]:
    """Yield all metrics of a process."""
    requests = stats.requests
    yield Family(
        f"{PREFIX}requests",
        _COUNTER,
        "Requests for streams.",
        ("entry_point", "operation", "status"),
        [((entry, operation, str(status)), n) for (entry, operation, status), n in requests.requests.items()],
    )
    yield _counts("errors", "Errors that clients got.", "type", requests.errors)
    yield _counts("fast_path_exits", "Requests that left the fast path.", "reason", requests.fast_path_exits)
    for metric in _OF_ENGINE:
        series: list[tuple[tuple[str, ...], Value]] = []
        for engine in stats.engines:
            values = metric.values(engine)
            if isinstance(values, Mapping):
                series += [((engine.database, name), value) for name, value in values.items()]
            else:
                series.append(((engine.database,), values))
        labels = ("database",) if metric.label is None else ("database", metric.label)
        yield Family(PREFIX + metric.name, metric.kind, metric.help, labels, series)


def _counts(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Family:
    return Family(PREFIX + name, _COUNTER, help_text, (label,), [((key,), n) for key, n in counts.items()])
