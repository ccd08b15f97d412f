"""Another client, in a process of its own: reads one stream again and again, and tells how long each read took.

    with Bystander(server, path) as bystander:
        ...
    bystander.p99

A client in the process of the test would wait for the test's own work.
"""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.hostile.entry_points import EntryPoint

# Reads until it is told to end, and prints seconds.
SCRIPT = """
import json, select, socket, sys, time
port, path = int(sys.argv[1]), sys.argv[2]
request = f"GET /v1/stream/{path}?offset=-1 HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n".encode()
connection = socket.create_connection(("127.0.0.1", port), timeout=30)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
waits = []
while True:
    began = time.monotonic()
    connection.sendall(request)
    received = b""
    while not received.endswith(b"\\r\\n\\r\\nx"):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    waits.append(time.monotonic() - began)
    if len(waits) == 1:
        print("ready", flush=True)
    if select.select([sys.stdin], [], [], 0.002)[0]:
        break
print(json.dumps(waits))
"""


class Bystander:
    """A client that reads a stream of one byte, `x`."""

    def __init__(self, server: EntryPoint, path: str) -> None:
        command = [sys.executable, "-c", SCRIPT, str(server.port), path]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path("/"), text=True
        )
        self.waits: list[float] = []

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        out, _ = self._process.communicate("end\n", timeout=60)
        self.waits = json.loads(out)

    @property
    def p99(self) -> float:
        """How long 99 of 100 reads took at most, in seconds."""
        return sorted(self.waits)[len(self.waits) * 99 // 100]
