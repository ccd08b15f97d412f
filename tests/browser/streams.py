"""Streams of a server under test, written by a program that may do everything."""

import json
import time
import urllib.request
from typing import Any

import jwt

KEY = "a secret of tests that is as long as such a secret has to be"


def token(**actions: list[str]) -> str:
    """Return a bearer token for some actions on patterns of paths. It lasts for an hour."""
    return jwt.encode({"exp": time.time() + 3600, "streams": actions}, KEY, "HS256")


EVERYTHING = token(create=["**"], read=["**"], append=["**"], close=["**"], delete=["**"])


class Streams:
    """Streams below a base URL."""

    def __init__(self, base_url: str) -> None:
        self._root = f"{base_url}/v1/stream/"

    def create(self, path: str, content_type: str = "application/json") -> str:
        """Create a stream, and return the path of its URL."""
        self._send("PUT", path, None, {"Content-Type": content_type})
        return f"/v1/stream/{path}"

    def fork(self, source: str, path: str) -> None:
        """Create a fork of a stream."""
        self._send("PUT", path, None, {"Stream-Forked-From": f"/v1/stream/{source}"})

    def append(self, path: str, *messages: Any) -> None:
        """Append messages of a JSON stream at once."""
        self.append_body(path, json.dumps(list(messages)).encode())

    def append_body(self, path: str, body: bytes, content_type: str = "application/json") -> None:
        """Append a body as it is."""
        self._send("POST", path, body, {"Content-Type": content_type})

    def close(self, path: str) -> None:
        """Close a stream."""
        self._send("POST", path, None, {"Stream-Closed": "true"})

    def delete(self, path: str) -> None:
        """Delete a stream."""
        self._send("DELETE", path, None, {})

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        headers = {"Authorization": f"Bearer {EVERYTHING}", **headers}
        request = urllib.request.Request(self._root + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            response.read()
