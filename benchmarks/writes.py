"""Workloads that write: creates, appends, appends by idempotent producers."""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks import wrk
from benchmarks.client import Client
from benchmarks.cpu import Meter
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.workload import Bench, body_file

WARM_UP_SECONDS = 1
BINARY = "application/octet-stream"
JSON = "application/json"
# More than this is not read back after a run: the check would take longer than the measurement.
READ_BACK_LIMIT = 64_000_000


def json_messages(count: int, size: int) -> bytes:
    """An array of `count` JSON messages of `size` bytes each."""
    empty = len(json.dumps({"n": 0, "text": ""}, separators=(",", ":")))
    messages = [{"n": n % 10, "text": "x" * (size - empty)} for n in range(count)]
    return json.dumps(messages, separators=(",", ":")).encode()


def binary(size: int) -> bytes:
    return b"x" * size


def _outcome(counts: wrk.Counts, size: int, extra: tuple[str, ...] = ()) -> Outcome:
    values = {
        "rate": counts.rate,
        "mb": counts.rate * size / 1e6,
        "p50": counts.p50_ms,
        "p99": counts.p99_ms,
    }
    return Outcome(values, counts.errors + extra)


def _check_stored(client: Client, name: str, size: int, runs: tuple[wrk.Counts, ...], connections: int) -> str:
    """Every answered append must be readable, and nothing else but those in flight when a run ended."""
    answered = sum(counts.requests for counts in runs)
    if answered * size > READ_BACK_LIMIT:
        return ""
    stored = client.count_bytes(name)
    most = answered + connections * len(runs)
    if stored % size or not answered <= stored // size <= most:
        return f"{answered} appends were answered, {stored / size:g} are in the stream"
    return ""


@dataclass(frozen=True)
class Append:
    """The same append again and again, on one stream or on several in turn."""

    size: int = 100
    connections: int = 64
    streams: int = 1
    messages: int = 0

    def run(self, bench: Bench) -> Outcome:
        content_type = JSON if self.messages else BINARY
        body = json_messages(self.messages, self.size) if self.messages else binary(self.size)
        names = [bench.name] if self.streams == 1 else [f"{bench.name}/{n}" for n in range(self.streams)]
        with Client(bench.address) as client, body_file(body) as file:
            for name in names:
                client.create(name, content_type)
            client.append(names[0], body, content_type)
            first = client.tail(names[0])
            warm_up = self.drive(bench, file, content_type, WARM_UP_SECONDS)
            with Meter(bench.pid) as meter:
                counts = self.drive(bench, file, content_type, bench.seconds)
            problems: tuple[str, ...] = ()
            if client.tail(names[0]) == first:
                problems += ("the stream did not grow",)
            if self.streams == 1 and not self.messages:
                probe = wrk.Counts(1, 1.0, 0, 0.0, 0.0, ())
                problem = _check_stored(client, names[0], self.size, (warm_up, counts, probe), self.connections)
                problems += (problem,) if problem else ()
            bench.leave(*names)
        return meter.added_to(_outcome(counts, len(body), problems), counts.requests)

    def drive(self, bench: Bench, file: str, content_type: str, seconds: int) -> wrk.Counts:
        headers = [f"Content-Type={content_type}", *(f"{name}={value}" for name, value in bench.address.headers)]
        script, arguments = "fixed", ["POST", file, *headers]
        if self.streams > 1:
            script, arguments = "paths", ["POST", file, str(self.streams), *headers]
        url = bench.address.url(bench.name)
        return wrk.run(script, url, arguments, threads=1, connections=self.connections, seconds=seconds)


@dataclass(frozen=True)
class ProducerAppend:
    """Idempotent producers on one stream, each on a connection of its own with a sequence of its own.

    Every response is looked at: 200 is an accepted append; 204 (a duplicate), 403 and 409 are errors.
    """

    size: int = 100
    producers: int = 64

    def run(self, bench: Bench) -> Outcome:
        with Client(bench.address) as client, body_file(binary(self.size)) as file:
            client.create(bench.name, BINARY)
            warm_up = self.drive(bench, file, "warm-up", WARM_UP_SECONDS)
            counts = self.drive(bench, file, "producer", bench.seconds)
            problem = _check_stored(client, bench.name, self.size, (warm_up, counts), self.producers)
            bench.leave(bench.name)
        return _outcome(counts, self.size, (problem,) if problem else ())

    def drive(self, bench: Bench, file: str, prefix: str, seconds: int) -> wrk.Counts:
        return wrk.run(
            "producers",
            bench.address.url(bench.name),
            [file, prefix, f"Content-Type={BINARY}"],
            threads=self.producers,
            connections=self.producers,
            seconds=seconds,
        )


@dataclass(frozen=True)
class Create:
    """PUT of a path that does not exist yet."""

    connections: int = 64

    def run(self, bench: Bench) -> Outcome:
        headers = {"Content-Type": BINARY}
        with Client(bench.address) as client:
            client.request("PUT", f"{bench.name}/probe", headers=headers, expect=(201,))
            self.drive(bench, "warm-up", WARM_UP_SECONDS)
            counts = self.drive(bench, "run", bench.seconds)
            # wrk takes the first request for a look at it and does not send it, so the paths start at 1.
            for number in (1, counts.requests // 2, max(0, counts.requests - self.connections)):
                client.request("HEAD", f"{bench.name}/run/{number}", expect=(200,))
        return _outcome(counts, 0)

    def drive(self, bench: Bench, name: str, seconds: int) -> wrk.Counts:
        return wrk.run(
            "paths",
            bench.address.url(f"{bench.name}/{name}"),
            ["PUT", "-", "0", f"Content-Type={BINARY}"],
            threads=1,
            connections=self.connections,
            seconds=seconds,
        )


@dataclass(frozen=True)
class ConstantPost:
    """For a server without streams: a POST whose body is read and thrown away."""

    size: int = 100
    connections: int = 64

    def run(self, bench: Bench) -> Outcome:
        with Client(bench.address) as client, body_file(binary(self.size)) as file:
            if client.append(bench.name, binary(self.size), BINARY).body:
                raise MeasurementError("a constant POST answered with a body")
            drive = Append(size=self.size, connections=self.connections).drive
            drive(bench, file, BINARY, WARM_UP_SECONDS)
            counts = drive(bench, file, BINARY, bench.seconds)
        return _outcome(counts, self.size)
