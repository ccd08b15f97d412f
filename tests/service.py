"""A server process for tests, on a free port and with a folder of its own, that ends with the test run at the latest.

Knows how to start, await, freeze and kill one. `services` says which there are.
"""

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.memory import folder_in_memory
from tests.servers import free_port
from tools.ensure_system import locate

START_SECONDS = 30.0
SETUP_SECONDS = 60.0
STOP_SECONDS = 10.0

# Who runs a database server that refuses to be run by root: the first of these that the system knows.
UNPRIVILEGED = ("postgres", "mysql", "nobody")


class ServiceFailed(Exception):
    """A service is not installed, or did not start. The message ends with the last lines of its log."""


class Service(ABC):
    """A server process on a free port, with a folder of its own.

    After `kill` or `stop`, `start` brings it back on the same port with the same data.
    """

    requirement: str
    """The service's name in `tools.ensure_system`."""

    def __init__(self) -> None:
        program = locate(self.requirement)
        if program is None:
            raise ServiceFailed(f"{self.requirement} is not installed: run `make test`, or install that package")
        self.program = program
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(
            prefix=f"durable-streams-{self.requirement}-", dir=folder_in_memory()
        )
        self.directory = Path(self._folder.name)
        self.log_path = self.directory / "log"
        self.user = _unprivileged()
        if self.user is not None:
            shutil.chown(self.directory, self.user)
        self._is_set_up = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The server's command line."""

    @abstractmethod
    def _ping(self) -> None:
        """Ask it for something. Raises any exception if it does not answer."""

    def _set_up(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepare the folder before the first start."""

    def start(self) -> Self:
        """Start it and return once it answers. Raises ServiceFailed."""
        if self.process is not None:
            raise RuntimeError(f"{self.requirement} is already running")
        if not self._is_set_up:
            self._set_up()
            self._is_set_up = True
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        atexit.register(self.kill)
        _exit_on_sigterm()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it with SIGTERM or, if that takes too long, at once."""
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and all of its processes at once, with SIGKILL, as a power cut would."""
        if self.process is None:
            return
        process, self.process = self.process, None
        atexit.unregister(self.kill)
        send_signal([process.pid], signal.SIGSTOP)  # so that it makes no new children meanwhile
        send_signal([process.pid, *descendants(process.pid)], signal.SIGKILL)
        process.wait()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: it holds its connections, accepts new ones, and answers nothing."""
        assert self.process is not None
        send_signal([self.process.pid], signal.SIGSTOP)
        send_signal(descendants(self.process.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        assert self.process is not None
        send_signal([self.process.pid, *descendants(self.process.pid)], signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._folder.cleanup()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            if (status := self.process.poll()) is not None:
                raise ServiceFailed(f"{self.requirement} ended with status {status}\n{self.log_tail()}")
            try:
                return self._ping()
            except Exception as error:  # each client library has a family of its own
                if time.monotonic() > deadline:
                    raise ServiceFailed(f"{self.requirement} does not answer: {error}\n{self.log_tail()}") from error
            time.sleep(0.05)

    def _run(self, *command: str) -> None:
        """Run a program that prepares the folder."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            user=self.user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SETUP_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceFailed(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')}")

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-20:])


@functools.cache
def _unprivileged() -> str | None:
    """The user to run database servers as, or None for this one."""
    if os.geteuid() != 0:
        return None
    existing = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in existing)


def _exit_on_sigterm() -> None:
    """Let SIGTERM end the test run as an exit does: its own way would leave the services behind."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def send_signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    result: list[int] = []
    waiting = [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        result += more
        waiting += more
    return result


def _parents() -> Iterator[tuple[int, int]]:
    """Yield every process with its parent."""
    if Path("/proc/self/stat").exists():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name, in brackets, may have anything in it.
                yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        return
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        child, parent = line.split()
        yield int(child), int(parent)
