"""A local server that speaks the HTTP of model providers, as far as the tests of sources need it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Provider(ThreadingHTTPServer):
    """Answers each POST with the events of `script`, by its path.

    requests: the bodies that have come.
    hangs: after the events, send more of the last one until the client leaves.
    left: set when a client has left.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Any] = []
        self.status = 200
        self.hangs = False
        self.requests: list[Any] = []
        self.left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(json.loads(body))
        self.send_response(self.server.status)
        if self.server.status != 200:
            error = b'{"error": {"message": "Invalid key sk-secret", "type": "invalid_request_error"}}'
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(error)))
            self.end_headers()
            self.wfile.write(error)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for value in self.server.script:
            self._send(value)
        try:
            while self.server.hangs:
                self._send(self.server.script[-1])
        except OSError:
            self.server.left.set()

    def _send(self, value: Any) -> None:
        name = f"event: {value['type']}\n" if isinstance(value, dict) and "type" in value else ""
        data = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"{name}data: {data}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    """Serve in the block."""
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.hangs = False
            server.shutdown()
            thread.join()
