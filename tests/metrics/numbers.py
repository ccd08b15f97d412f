"""What tests of numbers share: the numbers before something, and what it has added."""

from collections.abc import Callable, Mapping
from typing import Any

from django_durable_streams.engine.engine import existing_engine
from django_durable_streams.engine.numbers import EngineStats, numbers_for
from django_durable_streams.server import request_numbers


def engine_stats() -> EngineStats:
    """The numbers of the tests' database."""
    engine = existing_engine("default")
    return numbers_for("default").stats() if engine is None else engine.stats()


class Added:
    """What was added to counts since the object was made. Counts last as long as the process: other tests count too."""

    def __init__(self, counts: Callable[[], Mapping[Any, int]]) -> None:
        self._counts = counts
        self._before = dict(counts())

    def __call__(self) -> dict[Any, int]:
        after = self._counts()
        return {key: n - self._before.get(key, 0) for key, n in after.items() if n != self._before.get(key, 0)}


def added_requests() -> Added:
    """Requests by entry point, operation and status."""
    return Added(lambda: request_numbers.stats().requests)
