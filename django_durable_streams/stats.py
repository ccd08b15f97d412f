"""What this process has done: the numbers of its engines and of its requests, for code of the project.

from django_durable_streams.stats import process_stats
process_stats().engines[0].commit_seconds.quantile(0.99)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .engine.engine import existing_engine
from .engine.numbers import EngineStats, all_numbers
from .runtime.counting import HistogramValue
from .server import request_numbers
from .server.request_numbers import RequestStats

__all__ = ["EngineStats", "HistogramValue", "ProcessStats", "RequestStats", "process_stats"]


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """The numbers of this process, at one moment. Other processes have their own.

    Attributes:
        process: the id of the process.
        engines: one for each database to which this process has appended, or of which it serves streams.
        requests: the requests for streams.
    """

    process: int
    engines: tuple[EngineStats, ...]
    requests: RequestStats


def process_stats() -> ProcessStats:
    """Return all numbers of this process. Safe to call from any thread. Sends no query."""
    engines = []
    for numbers in all_numbers():
        engine = existing_engine(numbers.using)
        engines.append(engine.stats() if engine is not None else numbers.stats())
    return ProcessStats(os.getpid(), tuple(engines), request_numbers.stats())
