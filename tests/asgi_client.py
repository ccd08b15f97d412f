"""The client of the test kit, with what the tests of the protocol often do."""

from typing import Any

from django_durable_streams.testing.client import (
    ROOT,
    Exchange,
    Headers,
    Message,
    Reply,
    StreamClient,
    encoded,
    named,
)

__all__ = ["ROOT", "AsgiClient", "Exchange", "Headers", "Message", "Reply", "encoded", "named"]


class AsgiClient(StreamClient):
    """Sends requests for streams to an application. Tests have a time limit of their own, and nothing is made easy.

    http_version: what the server that is not there says that the client speaks.
    """

    def __init__(self, application: Any, *, root: str = ROOT, http_version: str = "1.1") -> None:
        super().__init__(application, root=root, timeout=None, http_version=http_version, enforce_csrf_checks=True)

    async def create(self, path: str, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Reply:
        """Create a stream. Keywords are headers, with underscores for hyphens."""
        reply = await self.request("PUT", path, {"content-type": kind, **named(headers)}, body)
        assert reply.status == 201, reply.body
        return reply

    async def append(self, path: str, body: bytes, kind: str = "text/plain", **headers: str) -> Reply:
        """Append to a stream, and return the response whatever it is."""
        return await self.request("POST", path, {"content-type": kind, **named(headers)}, body)

    async def close(self, path: str) -> Reply:
        """Close a stream."""
        return await self.request("POST", path, {"stream-closed": "true"})

    async def get(self, target: str, **headers: str) -> Reply:
        """Read."""
        return await self.request("GET", target, named(headers))

    def follow(self, path: str, offset: str = "-1", mode: str = "sse", **headers: str) -> Exchange:
        """Return a live read that has not begun."""
        return self.open("GET", f"{path}?offset={offset}&live={mode}", named(headers))
