"""Servers that can be looked into from outside, and waiting for what is seen there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx

from tests.servers import APPLICATION, EntryPoint, Kind, Server

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.16
"""Seconds between two looks of `wait_until`."""

PROBED = "tests.entry_points.probe_asgi:application"
MIB = 1024 * 1024

# How long a server may wait for open responses before it ends. Tests that measure the end make this long: a response
# that ends in time has then ended by itself.
GRACE_OPTIONS = {"--timeout-graceful-shutdown", "--workers-kill-timeout", "--graceful-timeout"}
SHUTDOWN_SECONDS = "60"


@dataclass(frozen=True)
class Configuration:
    """A server program and the entry point through which it serves."""

    kind: Kind
    entry_point: EntryPoint

    def __str__(self) -> str:
        return f"{self.kind}-{self.entry_point}"


CONFIGURATIONS = (
    Configuration("uvicorn", "asgi"),
    Configuration("daphne", "asgi"),
    Configuration("granian", "asgi"),
    Configuration("hypercorn", "asgi"),
    Configuration("uvicorn", "urls"),
)


@dataclass(frozen=True)
class Probe:
    """What a serving process held at a moment.

    `direct` are connections that streams are served on without an ASGI server's steps; `files` are descriptors other
    than sockets. `connections` are uvicorn's, `places` those of live readers, `held` bytes of unfinished bodies,
    `transfers` responses that clients have not taken.
    """

    pid: int
    tasks: int
    threads: int
    listeners: int
    direct: int
    connections: int
    requests: int
    places: int
    held: int
    transfers: int
    files: int
    databases: int


class ProbedServer(Server):
    """A server of the example project, or of another application, that answers `probe`.

    application: what to serve, as `module:name`; only the default answers the probe.
    options: further command line options for the server program.
    patient: waits for open responses as long as they take, instead of cutting them off.
    """

    def __init__(
        self,
        kind: Kind = "uvicorn",
        *,
        entry_point: EntryPoint = "asgi",
        workers: int = 1,
        long_poll_timeout: float = 30,
        env: Mapping[str, str] | None = None,
        application: str = PROBED,
        options: Sequence[str] = (),
        patient: bool = False,
    ) -> None:
        super().__init__(kind, entry_point=entry_point, workers=workers, long_poll_timeout=long_poll_timeout, env=env)
        self.application = application
        self.options = list(options)
        self.patient = patient

    def url(self, path: str) -> str:
        """The URL of a stream."""
        return f"{self.base_url}/v1/stream/{path}"

    def create(self, content: bytes = b"", *, kind: str = "text/plain", **headers: str) -> str:
        """Create a stream and return its path."""
        path = f"s-{uuid4().hex}"
        fields = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        response = httpx.put(self.url(path), content=content, headers=fields, timeout=30)
        assert response.status_code == 201, response.text
        return path

    def append(self, path: str, content: bytes, *, kind: str = "text/plain", **headers: str) -> str:
        """Append to a stream and return the offset after it."""
        fields = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        response = httpx.post(self.url(path), content=content, headers=fields, timeout=30)
        assert response.status_code in (200, 204), response.text
        return response.headers["Stream-Next-Offset"]

    def probe(self, *, collect: bool = False) -> Probe:
        """What the serving process holds now; `collect`: without what nobody holds."""
        return Probe(**httpx.get(f"{self.base_url}/_probe{'?collect' if collect else ''}", timeout=10).json())

    def memory_peak(self) -> int:
        """The most memory that the serving process has had, in bytes."""
        return memory_of(self.probe().pid, "VmHWM")

    def _command(self) -> list[str]:
        command = super()._command()
        command[command.index(APPLICATION)] = self.application
        if self.patient:
            for option in GRACE_OPTIONS & set(command):
                command[command.index(option) + 1] = SHUTDOWN_SECONDS
        return [*command[:-1], *self.options, command[-1]]


def memory_of(pid: int, field: str) -> int:
    """A field of a process's memory, in bytes: VmRSS as it is now, VmHWM the most that it was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition and return how many seconds that took. Fails after so many seconds.

    A condition that takes long to come true is looked at less often: most ask a server, which collects its garbage.
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return time.monotonic() - began
