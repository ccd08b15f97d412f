"""Processor time of a server, which other load on the machine changes less than the time on the clock."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.outcome import Outcome

TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Return the user and system time of a process and all its descendants, in seconds."""
    times: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(path.parent.name)
        children[int(fields[1])].append(number)
        times[number] = (int(fields[11]) + int(fields[12])) / TICKS
    total, waiting = 0.0, [pid]
    while waiting:
        current = waiting.pop()
        total += times.get(current, 0.0)
        waiting += children[current]
    return total


class Meter:
    """Use as a context manager: the processor time that a server takes meanwhile.

    pid: the server's process. None: it is not known, and nothing is measured.
    """

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.seconds = 0.0

    def __enter__(self) -> Self:
        if self._pid is not None:
            self.seconds = -seconds(self._pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid is not None:
            self.seconds += seconds(self._pid)

    def added_to(self, outcome: Outcome, requests: int) -> Outcome:
        """Return an outcome with the microseconds for each request as the value "cpu"."""
        if self._pid is None or not requests:
            return outcome
        return replace(outcome, values={**outcome.values, "cpu": self.seconds / requests * 1e6})
