"""Workloads that read what is there: whole streams, nothing new, not modified."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from benchmarks import wrk
from benchmarks.client import Client, Response
from benchmarks.cpu import Meter
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.workload import Bench
from benchmarks.writes import BINARY, WARM_UP_SECONDS, binary


class Ask(Enum):
    """What the reader asks for."""

    EVERYTHING = "from the start"
    NEWS = "past the tail"
    IF_CHANGED = "from the start, with the ETag that it has"


@dataclass(frozen=True)
class Read:
    """GET of a stream of `size` bytes that was written in `appends` appends."""

    size: int
    appends: int = 1
    ask: Ask = Ask.EVERYTHING
    connections: int = 64

    def run(self, bench: Bench) -> Outcome:
        with Client(bench.address) as client:
            client.create(bench.name, BINARY)
            for _ in range(self.appends):
                client.append(bench.name, binary(self.size // self.appends), BINARY)
            target, headers = bench.name + "?offset=-1", {}
            if self.ask is Ask.NEWS:
                target = f"{bench.name}?offset={client.tail(bench.name)}"
            elif self.ask is Ask.IF_CHANGED:
                etag = client.request("GET", target, expect=(200,)).header("etag")
                headers = {"If-None-Match": etag}
            self._check(client.request("GET", target, headers=headers))
            sent = {**dict(bench.address.headers), **headers}
            drive(bench.address.url(target), sent, self.connections, WARM_UP_SECONDS)
            with Meter(bench.pid) as meter:
                counts = drive(bench.address.url(target), sent, self.connections, bench.seconds)
            self._check(client.request("GET", target, headers=headers))
            bench.leave(bench.name)
        outcome = read_outcome(counts, self.size if self.ask is Ask.EVERYTHING else 0)
        return meter.added_to(outcome, counts.requests)

    def _check(self, response: Response) -> None:
        status, length = (304, 0) if self.ask is Ask.IF_CHANGED else (200, self.size)
        if self.ask is Ask.NEWS:
            length = 0
        if (response.status, len(response.body)) != (status, length):
            raise MeasurementError(
                f"GET gave {response.status} with {len(response.body)} bytes, not {status} with {length}"
            )


@dataclass(frozen=True)
class ConstantGet:
    """For a server without streams: a GET that is answered with a constant body of `size` bytes."""

    size: int
    connections: int = 64

    def run(self, bench: Bench) -> Outcome:
        with Client(bench.address) as client:
            length = len(client.request("GET", bench.name, expect=(200,)).body)
        if length != self.size:
            raise MeasurementError(f"the constant body has {length} bytes, not {self.size}")
        drive(bench.address.url(bench.name), {}, self.connections, WARM_UP_SECONDS)
        counts = drive(bench.address.url(bench.name), {}, self.connections, bench.seconds)
        return read_outcome(counts, self.size)


def drive(url: str, headers: dict[str, str], connections: int, seconds: int) -> wrk.Counts:
    arguments = ["GET", "-", *(f"{name}={value}" for name, value in headers.items())]
    return wrk.run("fixed", url, arguments, threads=1, connections=connections, seconds=seconds)


def read_outcome(counts: wrk.Counts, size: int) -> Outcome:
    """wrk does not compare bodies; too few bytes for the number of responses show that they were cut."""
    errors = counts.errors
    if counts.requests and counts.bytes / counts.requests < size:
        errors += (f"{counts.bytes / counts.requests:.0f} bytes a response, not {size}",)
    values = {
        "rate": counts.rate,
        "mb": counts.rate * size / 1e6,
        "p50": counts.p50_ms,
        "p99": counts.p99_ms,
    }
    return Outcome(values, errors)
