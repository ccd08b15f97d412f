"""The arguments of a workload, and its interface."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.client import Address
from benchmarks.outcome import Outcome


@dataclass(frozen=True)
class Bench:
    """One running server, and the time to measure it.

    `name` is a path that nothing else uses, for this measurement's streams; `pid` is unknown (None) for a
    server that this run has not started; `thorough` is False when samples should be few and quick. `project` is the
    environment of the Django project behind the server, and empty for other servers.
    """

    address: Address
    pid: int | None
    seconds: int
    name: str
    thorough: bool = True
    leftovers: list[str] = field(default_factory=list)
    project: Mapping[str, str] = field(default_factory=dict)

    def leave(self, *names: str) -> None:
        """Leaves streams to be deleted when all is measured: no measurement pays for the traces of another."""
        self.leftovers.extend(names)


class Workload(Protocol):
    def run(self, bench: Bench) -> Outcome:
        """Prepares, warms up, measures, checks. Raises MeasurementError when there is nothing to report."""


@contextmanager
def body_file(body: bytes) -> Iterator[str]:
    """A request body where wrk's script can read it."""
    with tempfile.TemporaryDirectory(prefix="bench-body-") as directory:
        path = Path(directory) / "body"
        path.write_bytes(body)
        yield str(path)
