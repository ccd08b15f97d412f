"""A throwaway Redis on 127.0.0.1, without persistence."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.outcome import MeasurementError
from benchmarks.targets import free_port

START_SECONDS = 10.0


@contextmanager
def running_redis() -> Iterator[str]:
    """Run a Redis on a free port during the block, and yield its URL.

    Raises:
        MeasurementError: it is not installed, or does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise MeasurementError("redis-server is not installed")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as directory:
        process = subprocess.Popen(
            [program, *options], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise MeasurementError("redis-server does not start") from None
            time.sleep(0.05)
