"""Python processes that begin with their imports done: forked from one that has imported what servers import.

    process = start([sys.executable, "-m", "uvicorn", ...], cwd=..., env=..., output=file)

A server of a test imports a thousand modules before it does anything, which takes longer than most tests. Here one
process imports those that need no settings, and forks for each server that a run of the tests starts. For servers with
the apps of the example project, a child of it imports these too, and forks in its place. The rest is as with a new
interpreter: arguments, settings, environment, folder, output, group and exit status. This needs Linux; elsewhere, and
with TESTS_PRELOAD=0, `start` starts a new interpreter.
"""

import array
import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

START_SECONDS = 60.0


class Process(Protocol):
    """What tests use of a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: int,
    errors: int | None = None,
    stdin: int | None = None,
) -> Process:
    """Start a Python program as the leader of a group of its own.

    Args:
        command: the interpreter, and then `-m` and a module, `-c` and a text, or a script, with their arguments.
        cwd: the folder that it is started in.
        env: its whole environment.
        output: the descriptor of an open file, for what it writes.
        errors: another one, for what it writes to stderr. Default: the same.
        stdin: another one, for what it reads. Default: nothing.
    """
    outputs = [output, output if errors is None else errors]
    if hasattr(os, "pidfd_open") and os.environ.get("TESTS_PRELOAD") != "0":
        job = {"arguments": list(command[1:]), "cwd": str(cwd), "env": dict(env)}
        return _template().fork(job, outputs if stdin is None else [*outputs, stdin])
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=outputs[0],
        stderr=outputs[1],
        process_group=0,
    )


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a Python program whose output is text. See `run_for_bytes`."""
    done = run_for_bytes(command, cwd=cwd, env=env, timeout=timeout)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_for_bytes(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a Python program to its end.

    Args:
        command, cwd, env: as for `start`.
        timeout: seconds, after which it is killed.
        stdin: what it can read, from a file.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as content:
        content.write(stdin)
        content.seek(0)
        files = {"output": output.fileno(), "errors": errors.fileno(), "stdin": content.fileno()}
        process = start(command, cwd=cwd, env=env, **files)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


class ForkedProcess:
    """A child of the template, which tells of its end."""

    def __init__(self, news: socket.socket) -> None:
        self._news = news
        news.settimeout(START_SECONDS)
        self.pid = self._next()
        self.returncode: int | None = None

    def _next(self) -> int:
        (number,) = array.array("i", self._news.recv(array.array("i").itemsize))
        return number

    def poll(self) -> int | None:
        """Return the exit status, or None before the end."""
        if self.returncode is None and select.select([self._news], [], [], 0)[0]:
            self.returncode = self._next()
            self._news.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once the process has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._news], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)


class Template:
    """The process that the others are forked from."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = Path(__file__).with_name("preloading.py")
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(theirs.fileno())],
            env={**inherited, "PYTHONUNBUFFERED": "1"},  # its children cannot choose any more
            cwd=script.parent.parent,
            stdin=subprocess.DEVNULL,
            process_group=0,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def fork(self, job: Mapping[str, object], files: Sequence[int]) -> ForkedProcess:
        """Start a program in a child of this process, with these descriptors as its stdout, stderr and maybe stdin."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._control, [json.dumps(job).encode()], [*files, theirs.fileno()])
        return ForkedProcess(ours)

    def close(self) -> None:
        """End this process. Its children go on."""
        self._control.close()
        self._process.wait()


@functools.cache
def _template() -> Template:
    template = Template()
    atexit.register(template.close)
    return template
