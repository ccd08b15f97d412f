"""Requests and responses of the handlers, independent of ASGI and Django. Knows no server and no permission."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from . import headers, paths
from .caching import Caching
from .errors import DurableStreamsError, InvalidOffset, InvalidParameter, StreamNotFound

Header = tuple[bytes, bytes]

CLOSED: Header = (headers.STREAM_CLOSED, b"true")


ENDING_SECONDS = 1.0
"""Time that a client has to send or take more data once the server is about to end."""


class ClientDisconnected(Exception):
    """The client left before its request was complete."""


class LiveGrant(Protocol):
    """The permission of a live read, which may end while the read lasts."""

    @property
    def seconds_left(self) -> float:
        """How long the permission can last at most."""

    def holds(self, now: float) -> bool:
        """Return whether the permission holds at a monotonic time."""

    def check(self) -> None:
        """Raise NotAuthenticated or PermissionDenied where the permission has ended."""


class PartialBody(Protocol):
    """The parts of a body that have arrived, which count towards a limit until they are released."""

    def release(self) -> None:
        """Give the memory of the parts back."""


class Request(ABC):
    """An HTTP request for a stream. Each entry point has a subclass.

    Args:
        method: HTTP method in capitals.
        path: path of the stream, relative to the root of the streams, percent-decoded and not yet validated.
        query: raw query string.
        header_list: pairs of lower-case name and value, in the order of the request.

    Raises:
        InvalidHeader: a header with one value came with different values.
    """

    __slots__ = (
        "_parameters", "arriving", "body", "grant", "headers", "made_id", "method", "operation", "path", "query",
        "refuse_body", "span",
    )  # fmt: skip

    can_stream = True
    """Whether this deployment can keep a response open."""

    is_bare = False
    """Whether no middleware is between the server and this app, so that none can have identified the caller."""

    made_id: str
    """The id of the request in log messages, once it is made for one that came without (`server.failures`)."""

    span: Any
    """The span of the request, if requests are traced (`runtime.tracing`)."""

    caller: Any = None
    """The sender of the request, if the entry point knows it: an `access.identities.Identity`."""

    def __init__(self, method: str, path: str, query: bytes, header_list: list[Header]) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers: Mapping[bytes, bytes] = headers.by_name(header_list)
        self._reset()

    def _reset(self, body: bytes | None = None) -> None:
        self.body = body  # complete
        self.operation = ""  # for statistics, where the method alone does not say it, such as `sse`
        self.arriving: PartialBody | None = None  # the parts that have arrived
        self._parameters: Query | None = None
        self.grant: LiveGrant | None = None  # the permission of a live read, if it can end
        self.refuse_body: Callable[[], DurableStreamsError] | None = None  # set if only an empty body is allowed

    @property
    def is_live(self) -> bool:
        """Whether a read waits for data to come.

        Raises:
            InvalidParameter: the query has the parameter twice, or is not UTF-8.
        """
        return self.parameter("live") is not None

    @property
    @abstractmethod
    def scheme(self) -> str:
        """`http` or `https`, from the server."""

    @property
    @abstractmethod
    def source(self) -> Any:
        """The ASGI scope or Django's request, for permissions."""

    @abstractmethod
    def url(self) -> bytes:
        """Return the absolute URL of the stream."""

    @abstractmethod
    def root(self) -> str:
        """Return the path of the root of the streams in URLs, percent-decoded, with a slash at its end."""

    @abstractmethod
    async def read_body(self) -> bytes:
        """Return the whole body.

        Called once the request is allowed. `arriving` then holds the parts, and the caller releases it.

        Raises:
            PayloadTooLarge: the body is over the limit, and was read no further.
            IncompleteBody: the body is shorter than announced.
            RequestTimeout: the body did not arrive in time.
            ServiceUnavailable: other incomplete bodies take all of the memory limit.
            ClientDisconnected: the client left before the end of the body.
        """

    def waiting_bytes(self) -> int:
        """Return how much of the body is in memory while it is not yet decided whether the request is allowed."""
        return 0 if self.body is None else len(self.body)

    def drop_body(self) -> None:
        """Drop that part of the body, because there is no room for it. The request will be refused."""
        self.body = b""

    def when_left(self, tell: Callable[[], object]) -> None:  # noqa: B027 - entry points may do nothing
        """Call a function when the client leaves before the response.

        It is not called where the entry point itself ends the request then.
        """

    def let_leave(self) -> None:  # noqa: B027
        """Cancel the call of `when_left`."""

    def send_now(self, response: Response) -> bool:
        """Send a response at once, without waking the request's own task.

        Returns False if the entry point cannot. Then nothing was sent.
        """
        return False

    def fork_source(self) -> str | None:
        """Return the path of the source of a new fork, or None (section 4.2).

        Raises:
            InvalidPath, StreamNotFound: no stream of this server can have the path.
        """
        source = self.headers.get(headers.STREAM_FORKED_FROM)
        if source is None:
            return None
        # As servers decode the path of a request: bytes that are not UTF-8 become a character that no path has.
        path, root = unquote_to_bytes(source.strip(b" \t")).decode(errors="replace"), self.root()
        if not path.startswith(root):
            raise StreamNotFound(f"Stream-Forked-From must be the path of a stream on this server, below {root}.")
        return paths.validate_again(path[len(root) :])

    def header(self, name: bytes) -> str | None:
        """Return a header's value as text, or None if the request does not have it."""
        value = self.headers.get(name)
        return None if value is None else headers.text(value)

    def parameter(self, name: str) -> str | None:
        """Return a query parameter, or None if the request does not have it. No other code interprets the query.

        Raises:
            InvalidOffset, InvalidParameter: the parameter came twice, or the query is not UTF-8.
        """
        if not self.query:
            return None
        parsed = self._parameters or self.parsed_query()
        if parsed.repeated and name in parsed.repeated:
            raise _repeated(name)
        return parsed.values.get(name)

    def parsed_query(self) -> Query:
        """Return all query parameters.

        Raises:
            InvalidOffset, InvalidParameter: the query is not UTF-8, has too many parameters, or one of the protocol's
                came twice.
        """
        if self._parameters is None:
            is_short = len(self.query) <= MAX_CACHED_QUERY_BYTES
            self._parameters = _parse_query(self.query) if is_short else _parse_query.__wrapped__(self.query)
        return self._parameters


class Query(NamedTuple):
    """A parsed query string: its pairs in order, the last value of each name, and the names that came twice."""

    pairs: tuple[tuple[str, str], ...]
    values: Mapping[str, str]
    repeated: frozenset[str]


MAX_PARAMETERS = 100
"""Query parameters of one request."""

MAX_CACHED_QUERY_BYTES = 4096
"""Length of a query up to which its parsed form is cached."""

_PARAMETERS = ("offset", "live", "cursor")


@lru_cache(maxsize=512)
def _parse_query(query: bytes) -> Query:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidParameter(
            f"The query string is invalid. Send UTF-8, with at most {MAX_PARAMETERS} parameters."
        ) from error
    values = dict(pairs)
    repeated = frozenset[str]()
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = frozenset(name for name in values if names.count(name) > 1)
        for name in _PARAMETERS:
            if name in repeated:
                raise _repeated(name)
    return Query(tuple(pairs), values, repeated)


def _repeated(name: str) -> DurableStreamsError:
    kind = InvalidOffset if name == "offset" else InvalidParameter
    return kind(f"The parameter {name} came twice.")


class Response:
    """A complete HTTP response.

    Args:
        status: HTTP status.
        header_list: pairs of lower-case name and value.
        is_shared: whether many requests get this object. Then no code may change it, and its encoded form is kept.
        caching: what caches may do with the response to a read. `server.response_policy` makes headers from it.

    Attributes:
        sent: whether `Request.send_now` has sent it.
        wire: place where an entry point keeps the encoded form of a shared response.
    """

    __slots__ = ("_completed", "body", "caching", "headers", "is_shared", "sent", "status", "wire")

    is_chunked = False
    """Whether the body comes in parts, whose length is not known before."""

    def __init__(
        self,
        status: int,
        header_list: list[Header],
        body: bytes = b"",
        *,
        is_shared: bool = False,
        caching: Caching = Caching.NEVER,
    ) -> None:
        self.status = status
        self.caching = caching
        self.headers = header_list
        self.body = body
        self.is_shared = is_shared
        self.sent = False
        self.wire: tuple[object, bytes] | None = None
        self._completed: tuple[list[Header], Response] | None = None

    def with_headers(self, added: list[Header]) -> Response:
        """Return the response with more headers. A shared response does not change, and returns the same copy again."""
        if not self.is_shared:
            self.headers += added
            return self
        completed = self._completed
        if completed is None or completed[0] is not added:
            copy = Response(self.status, [*self.headers, *added], self.body, is_shared=True, caching=self.caching)
            completed = self._completed = added, copy
        return completed[1]


def stream_headers(content_type: str, next_offset: bytes, *, closed: bool) -> list[Header]:
    """Return the headers that describe a stream."""
    header_list = [
        (headers.CONTENT_TYPE, content_type.encode("latin-1")),
        (headers.STREAM_NEXT_OFFSET, next_offset),
    ]
    if closed:
        header_list.append(CLOSED)
    return header_list


def error_response(error: DurableStreamsError) -> Response:
    """Return the response that tells a client of an error."""
    body = error.problem()
    return Response(
        error.status,
        [
            (headers.CONTENT_TYPE, error.content_type),
            (headers.CONTENT_LENGTH, b"%d" % len(body)),
            *error.headers,
        ],
        body,
    )
