"""Requests and responses as the handlers see them: neither ASGI's nor Django's. Knows no server and no permission."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from . import headers, paths
from .caching import Caching
from .errors import DurableStreamsError, InvalidOffset, InvalidParameter, StreamNotFound

Header = tuple[bytes, bytes]

CLOSED: Header = (headers.STREAM_CLOSED, b"true")


ENDING_SECONDS = 1.0
"""How long a client may send or take nothing more once the server is about to end."""


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
    """An HTTP request for a stream. Each door has a kind of its own.

    Args:
        method: in capitals.
        path: of the stream, relative to the root of the streams, percent-decoded and not yet validated.
        query: the raw query string.
        header_list: names in lower case and values, as they came.

    Raises:
        InvalidHeader: a header with one value came with different ones.
    """

    __slots__ = ("_parameters", "arriving", "body", "grant", "headers", "method", "path", "query", "refuse_body")

    can_stream = True
    """Whether this deployment can hold a response open."""

    is_bare = False
    """Whether nothing stands between the server and this app, so that nobody else can have said who sent it."""

    caller: Any = None
    """Who sent the request, where the entry point knows: an `access.identities.Identity`."""

    def __init__(self, method: str, path: str, query: bytes, header_list: list[Header]) -> None:
        self.method = method
        self.path = path
        self.query = query
        found = dict(header_list)
        if len(found) != len(header_list):
            found = headers.merge_repeated(header_list)
        self.headers: Mapping[bytes, bytes] = found
        self._reset()

    def _reset(self, body: bytes | None = None) -> None:
        self.body = body  # the whole of it, once it is there
        self.arriving: PartialBody | None = None  # what has come of it, where it comes in parts
        self._parameters: Query | None = None
        self.grant: LiveGrant | None = None  # what a live read stands on, where that can end
        self.refuse_body: Callable[[], DurableStreamsError] | None = None  # where only an empty body is allowed

    @property
    @abstractmethod
    def scheme(self) -> str:
        """`http` or `https`, as the server has it."""

    @property
    @abstractmethod
    def source(self) -> Any:
        """The ASGI scope or Django's request. Permissions decide by it."""

    @abstractmethod
    def url(self) -> bytes:
        """Return the absolute URL of the stream."""

    @abstractmethod
    def root(self) -> str:
        """Return the path of the root of the streams in URLs, percent-decoded, with a slash at its end."""

    @abstractmethod
    async def read_body(self) -> bytes:
        """Return the whole body.

        It is asked for once the request is allowed. What holds the parts is left in `arriving`, to be released.

        Raises:
            PayloadTooLarge: it is over the limit, and was read no further.
            IncompleteBody: it is less than was announced.
            RequestTimeout: it did not come in time.
            ServiceUnavailable: too much of other bodies is there already.
            ClientDisconnected: it did not come to its end.
        """

    def when_left(self, tell: Callable[[], object]) -> None:  # noqa: B027 - a door need not do anything
        """Have a function called when the client leaves before it is answered.

        It is not called where the door itself ends the request then.
        """

    def let_leave(self) -> None:  # noqa: B027
        """Have it called no longer."""

    def send_now(self, response: Response) -> bool:
        """Send a response from where the news of it arrives, without waking the request's own task.

        Returns False where the door cannot; then nothing was sent.
        """
        return False

    def fork_source(self) -> str | None:
        """Return the path of the stream that a create wants to fork, or None (section 4.2).

        Raises:
            InvalidPath, StreamNotFound: no stream of this server can have it.
        """
        source = self.header(headers.STREAM_FORKED_FROM)
        if source is None:
            return None
        path, root = unquote(source), self.root()
        if not path.startswith(root):
            raise StreamNotFound(f"Stream-Forked-From is the path of a stream on this server, below {root}.")
        return paths.validate_again(path[len(root) :])

    def header(self, name: bytes) -> str | None:
        """Return a header's value as text, or None where it did not come."""
        value = self.headers.get(name)
        return None if value is None else headers.text(value)

    def parameter(self, name: str) -> str | None:
        """Return a query parameter, or None where it did not come. Nothing else decides by the query.

        Raises:
            InvalidOffset, InvalidParameter: it came twice, or the query is not UTF-8.
        """
        if not self.query:
            return None
        found = self._parameters or self.parsed_query()
        if found.repeated and name in found.repeated:
            raise _repeated(name)
        return found.values.get(name)

    def parsed_query(self) -> Query:
        """Return all query parameters.

        Raises:
            InvalidOffset, InvalidParameter: the query is not UTF-8, has too many parameters, or one of the protocol's
                came twice.
        """
        if self._parameters is None:
            is_short = len(self.query) <= MAX_REMEMBERED_QUERY
            self._parameters = _parse_query(self.query) if is_short else _parse_query.__wrapped__(self.query)
        return self._parameters


class Query(NamedTuple):
    """A query string, read once: its pairs as they came, the last value of each name, the names that came twice."""

    pairs: tuple[tuple[str, str], ...]
    values: Mapping[str, str]
    repeated: frozenset[str]


MAX_PARAMETERS = 100
"""Query parameters of one request."""

MAX_REMEMBERED_QUERY = 4096
"""Bytes of a query up to which what was read is remembered."""

_PARAMETERS = ("offset", "live", "cursor")


@lru_cache(maxsize=512)
def _parse_query(query: bytes) -> Query:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidParameter("The query string cannot be read.") from error
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
    """An HTTP response that is ready as a whole.

    Args:
        is_shared: many requests get it, so nothing in it may be changed; what is made of it can be kept.
        caching: what caches may do with it, where it answers a read. The policy makes headers of that.

    `sent`: it has been sent already, by `Request.send_now`. `wire`: where a door keeps a shared one as it is sent.
    """

    __slots__ = ("_completed", "body", "caching", "headers", "is_shared", "sent", "status", "wire")

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
        """Return the response with some more headers. One that is shared stays as it is, and gives the same again."""
        if not self.is_shared:
            self.headers += added
            return self
        known = self._completed
        if known is None or known[0] is not added:
            whole = Response(self.status, [*self.headers, *added], self.body, is_shared=True, caching=self.caching)
            known = self._completed = added, whole
        return known[1]


def stream_headers(content_type: str, next_offset: bytes, *, closed: bool) -> list[Header]:
    """Return the headers that say what a stream is like."""
    found = [
        (headers.CONTENT_TYPE, content_type.encode("latin-1")),
        (headers.STREAM_NEXT_OFFSET, next_offset),
    ]
    if closed:
        found.append(CLOSED)
    return found


def error_response(error: DurableStreamsError) -> Response:
    """Return the response that tells a client of an error (RFC 9457)."""
    body = error.problem()
    return Response(
        error.status,
        [
            (headers.CONTENT_TYPE, b"application/problem+json"),
            (headers.CONTENT_LENGTH, b"%d" % len(body)),
            *error.headers,
        ],
        body,
    )
