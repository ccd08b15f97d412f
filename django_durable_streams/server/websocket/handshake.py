"""The request that opens a WebSocket, and the requests that its frames stand for.

A browser sends cookies with a handshake that a page of any origin asks for, and lets that page read what comes back.
So one decision for each socket says which pages may open it, and which credentials its frames have. No permission sees
the others. Knows no frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ...access import csrf
from ...access.ambient_credentials import NO_HEADERS, CredentialVisibility, is_visible, strip_scope
from ...access.guard import Guard, current_guard
from ...access.identities import Identity
from ...access.users import anonymous
from ...conf import config
from ...links import stream_url
from ...protocol import headers
from ...protocol.errors import InvalidParameter, PermissionDenied
from ...protocol.messages import MAX_PARAMETERS, Header, Request
from ..bodies import check_whole
from ..hosts import absolute_url, check_host
from ..lifespan import Scope

SUBPROTOCOL = "durable-streams"
"""The subprotocol that is agreed on if the client offers it."""

_OF_HANDSHAKE = frozenset({headers.CONNECTION, headers.UPGRADE, headers.CONTENT_LENGTH, headers.TRANSFER_ENCODING})
_PREFIXES_OF_HANDSHAKE = (b"sec-websocket-", b"content-", b"if-", b"stream-", b"producer-")
"""Headers that belong to the handshake alone, or to the frames."""

_OF_FRAMES = ("offset", "live", "cursor")
"""Query parameters that frames have fields for, or no use for."""


class Handshake:
    """The request that opens a socket.

    Args:
        scope: the ASGI scope of the socket.

    Raises:
        BadRequest: the host is not in ALLOWED_HOSTS, or a header or the query is invalid (400).
        PermissionDenied: pages of this origin may not open sockets (403).
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
        by_name = headers.by_name([(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]])
        check_host(by_name)
        self._reads, self._changes = _visibilities(by_name, self.scheme)
        self._headers = {
            name: value
            for name, value in by_name.items()
            if name not in _OF_HANDSHAKE and not name.startswith(_PREFIXES_OF_HANDSHAKE)
        }
        self._query = _parameters(scope.get("query_string", b""))
        guard = current_guard()
        self._own = NO_HEADERS if guard is None else guard.credential_headers

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol to agree on."""
        return SUBPROTOCOL if SUBPROTOCOL in self._scope.get("subprotocols", ()) else None

    @cached_property
    def root(self) -> str:
        """The path of the root of the streams in URLs, percent-decoded, with a slash at its end."""
        return unquote(urlsplit(stream_url("")).path)

    def request(
        self, method: str, path: str, query: Mapping[str, str], header_list: list[Header] | None = None
    ) -> SocketRequest:
        """Return the request that a frame stands for.

        Args:
            method: GET or POST.
            path: path of the stream.
            query: query parameters, which count before those of the socket's own URL.
            header_list: further headers.

        Raises:
            InvalidHeader: as for `Request`.
        """
        visibility = self._reads if method == "GET" else self._changes
        visible = [
            (name, value) for name, value in self._headers.items() if is_visible(name, value, visibility, self._own)
        ]
        parameters = {**self._query, **query}
        encoded = urlencode(parameters).encode("ascii") if parameters else b""
        return SocketRequest(self, method, path, encoded, [*visible, *(header_list or ())])

    def scope_of(self, request: SocketRequest) -> Scope:
        """Return the ASGI scope of the HTTP request that a frame stands for, for permissions."""
        visibility = self._reads if request.method == "GET" else self._changes
        url_path = self.root + request.path
        return {
            "http_version": "1.1",
            **strip_scope(self._scope, visibility),
            "type": "http",
            "scheme": self.scheme,
            "method": request.method,
            "path": url_path,
            "raw_path": url_path.encode(),
            "query_string": request.query,
            "headers": list(request.headers.items()),
            # The handshake was checked, and hides what another site may have sent.
            csrf.EXEMPT: True,
        }


def _visibilities(
    request_headers: Mapping[bytes, bytes], scheme: str
) -> tuple[CredentialVisibility, CredentialVisibility]:
    """Return which ambient credentials reads and changes have.

    A browser sends the `Origin` of the page with each handshake. Pages of this site have all credentials. Other pages
    have those that the same page would have by HTTP: CORS_ORIGINS decides about reads, CSRF_TRUSTED_ORIGINS about
    changes. Cookies without an `Origin` do not count.

    Raises:
        PermissionDenied: pages of this origin may not open sockets.
    """
    origin = request_headers.get(headers.ORIGIN)
    if origin is None:
        return CredentialVisibility.NO_COOKIES, CredentialVisibility.NO_COOKIES
    if csrf.is_own_origin(request_headers, scheme):
        return CredentialVisibility.ALL, CredentialVisibility.ALL
    listed = config().cors_origins
    if "*" in listed:
        return CredentialVisibility.NOTHING, CredentialVisibility.NOTHING
    if origin.decode("latin-1") in listed:
        return CredentialVisibility.ALL, CredentialVisibility.NOTHING
    raise PermissionDenied("Pages of this origin may not open a WebSocket here. Add it to CORS_ORIGINS.")


def _parameters(query: bytes) -> dict[str, str]:
    """Return the query parameters that all frames of the socket have."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise InvalidParameter("The query string of the socket is invalid.") from error
    parameters = {name: value for name, value in pairs if name not in _OF_FRAMES}
    if len({name for name, _ in pairs}) < len(pairs):
        raise InvalidParameter("A query parameter of the socket came twice.")
    return parameters


class SocketRequest(Request):
    """The request that a frame stands for. `frame_body` is its body, which has arrived."""

    __slots__ = ("_handshake", "_source", "caller", "frame_body")

    def __init__(self, handshake: Handshake, method: str, path: str, query: bytes, header_list: list[Header]) -> None:
        super().__init__(method, path, query, header_list)
        self._handshake = handshake
        self._source: Scope | None = None
        self.caller: Identity | None = None
        self.frame_body = b""

    @property
    def scheme(self) -> str:
        return self._handshake.scheme

    @property
    def source(self) -> Any:
        if self._source is None:
            self._source = self._handshake.scope_of(self)
        return self._source

    def url(self) -> bytes:
        return absolute_url(self.scheme, self.root() + self.path, self.headers)

    def root(self) -> str:
        return self._handshake.root

    async def identify(self, guard: Guard) -> None:
        """Set the caller as the database has it now. What middleware has set is as old as the socket.

        Raises:
            ServiceUnavailable: the database does not answer.
        """
        if guard.needs_identity:
            user = self.source.get("user")
            earlier = Identity(anonymous() if user is None else user)
            current = guard.refresh_identity(self, earlier)
            self.caller = current if isinstance(current, Identity) else await current

    async def read_body(self) -> bytes:
        return check_whole(self.headers, None, self.frame_body)
