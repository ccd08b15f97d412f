"""A request on a connection of the fast path, as handlers and permissions see it.

The invariant: they see the same as through ASGI. So the address of the client and the scheme come from the server's own
rules for the headers of proxies. Most requests are answered without a look at them, so they are found when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol

from ...access.identities import Source
from ...protocol import headers
from ...protocol.messages import Request, Response
from ..answers import EventStream, Work
from ..dispatch import finish_request
from ..hosts import origin, quoted_path

if TYPE_CHECKING:
    from uvicorn.config import Config

    from .mount import Address, Mount, Place
    from .request_heads import Head


Prepared = tuple[int, bytes]
"""The status of a response, and its bytes."""


class AnsweringConnection(Protocol):
    """A connection as its request uses it."""

    mount: Mount
    config: Config
    app_state: dict[str, Any]
    client: Address | None
    server: tuple[str, int | None] | None
    origin: bytes | None
    """The scheme and host in URLs for the current request, once it was asked for."""

    @property
    def scheme(self) -> str | None:
        """The scheme of the connection."""

    async def receive_body(self, request: Request, length: int) -> bytes:
        """Return the body of the current request."""

    def waiting_bytes(self) -> int:
        """Return how much of a body waits until its request is allowed."""

    def drop_waiting(self) -> None:
        """Drop the part of a body that waits."""

    def prepare(self, request: FastPathRequest, value: object) -> Prepared | None:
        """Encode the response to an outcome that the engine is about to commit, or return None."""

    def send_prepared(self, request: FastPathRequest, prepared: Prepared) -> bool:
        """Send a prepared response. Return False, with nothing sent, if it does not fit the connection any more."""

    def write(self, request: FastPathRequest, response: Response) -> None:
        """Send the response to the current request."""

    def proceed(self, request: FastPathRequest, outcome: Response | EventStream | Work) -> None:
        """Send the response to a request, or do the work that leads to it."""

    def when_left(self, tell: Callable[[], object]) -> None:
        """Call a function when the client leaves before the current request is answered."""


class FastPathRequest(Request):
    """A request on a connection of the fast path. The committer gives it the outcome directly (`ResultCallback`).

    Args:
        head: the head of the request.
        place: the stream to which its path leads.
        body: the whole body, or None where it has not arrived.
        connection: the connection that answers the request.
    """

    __slots__ = ("_connection", "_head", "_place", "_prepared", "_source")

    is_bare = True

    def __init__(self, head: Head, place: Place, body: bytes | None, connection: AnsweringConnection) -> None:
        self.method = head.method
        self.path = place.path
        self.query = head.query
        self.headers = head.headers
        self._reset(body)
        self._head = head
        self._place = place
        self._connection = connection
        self._source: Source | None = None
        self._prepared: tuple[object, Prepared] | None = None

    @property
    def scheme(self) -> str:
        return self._forwarded()[1] or "http"

    @property
    def client(self) -> Address | None:
        """The address of the client, as the server tells it to its application."""
        return self._forwarded()[0]

    @property
    def version(self) -> str:
        """The version of HTTP."""
        return self._head.version

    @property
    def full_path(self) -> str:
        """The path of the request with the server's root path, as the server logs it."""
        return self._connection.mount.root_path + self._head.path

    @property
    def source(self) -> Source:
        if self._source is None:
            self._source = self._scope()
        return self._source

    def url(self) -> bytes:
        connection = self._connection
        if connection.origin is None:
            connection.origin = origin(self.scheme, self.headers)
        return connection.origin + quoted_path(self._place.outer_path)

    def root(self) -> str:
        return self._place.outer_path.removesuffix(self.path)

    async def read_body(self) -> bytes:
        return await self._connection.receive_body(self, self._head.content_length)

    def waiting_bytes(self) -> int:
        return self._connection.waiting_bytes() if self.body is None else len(self.body)

    def drop_body(self) -> None:
        self.body = b""
        self._connection.drop_waiting()

    def prepare(self, value: object) -> None:
        """Make the response to an outcome that the engine is about to commit."""
        prepared = self._connection.prepare(self, value)
        if prepared is not None:
            self._prepared = value, prepared

    def resolve(self, value: object) -> None:
        """Answer with the outcome. A prepared response is sent only if it belongs to this very outcome."""
        prepared, connection = self._prepared, self._connection
        if prepared is None or prepared[0] is not value or not connection.send_prepared(self, prepared[1]):
            connection.proceed(self, finish_request(self, value))

    def when_left(self, tell: Callable[[], object]) -> None:
        self._connection.when_left(tell)

    def send_now(self, response: Response) -> bool:
        self._connection.write(self, response)
        return True

    def _forwarded(self) -> tuple[Address | None, str | None]:
        connection, request_headers = self._connection, self.headers
        forwarded_for = request_headers.get(headers.FORWARDED_FOR)
        proto = request_headers.get(headers.FORWARDED_PROTO)
        if forwarded_for is None and proto is None:
            return connection.client, connection.scheme
        return connection.mount.forwarded(connection.client, connection.scheme, forwarded_for, proto)

    def _scope(self) -> dict[str, Any]:
        """Return the ASGI scope that uvicorn and routers would make of the head. Permissions may ask for it."""
        head, connection = self._head, self._connection
        client, scheme = self._forwarded()
        root_path = connection.mount.root_path
        return {
            "type": "http",
            "asgi": {"version": connection.config.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": connection.server,
            "client": client,
            "scheme": scheme,
            "method": head.method,
            "root_path": root_path,
            "path": self.full_path,
            "raw_path": root_path.encode("ascii") + head.raw_path,
            "query_string": head.query,
            "headers": list(head.headers.items()),
            "state": connection.app_state.copy(),
            **deepcopy(self._place.routed),  # a permission may note something in the arguments of its own route
        }
