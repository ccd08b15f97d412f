"""Servers that are reached by URL: ours, and the protocol's reference server where its package is installed."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.servers import HOST, ROOT, Server, free_port

REFERENCE = ROOT / "benchmarks" / "reference"
START_SECONDS = 20.0


@contextmanager
def reference_server() -> Iterator[str]:
    """Yield the root of the streams of the reference server. Skips the test where its package is not installed."""
    if not (REFERENCE / "node_modules" / "@durable-streams" / "server").exists():
        pytest.skip("the reference server is not installed: run npm ci in benchmarks/reference")
    port = free_port()
    process = subprocess.Popen(["node", "server.mjs", str(port)], cwd=REFERENCE, stdout=subprocess.DEVNULL)
    try:
        root = f"http://{HOST}:{port}/v1/stream/"
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.head(root + "is-anybody-there", timeout=1)
                break
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.05)
        yield root
    finally:
        process.kill()
        process.wait()


@contextmanager
def own_server() -> Iterator[str]:
    """Yield the root of the streams of a server of this package."""
    with Server(long_poll_timeout=2.0) as server:
        yield f"{server.base_url}/v1/stream/"
