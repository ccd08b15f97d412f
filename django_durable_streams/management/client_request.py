"""The request that a client would send, for permission classes that are asked without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from ..access.base import Action
from ..access.csrf import EXEMPT
from ..protocol import headers
from ..protocol.messages import Request

_METHODS = {
    Action.READ: "GET",
    Action.LIST: "GET",
    Action.CREATE: "PUT",
    Action.APPEND: "POST",
    Action.CLOSE: "POST",
    Action.DELETE: "DELETE",
    Action.SUBSCRIBE: "PUT",
}


class ClientRequest(Request):
    """A request that has passed Django's CSRF rules, over HTTPS, without a body.

    Args:
        action: what the client wants to do.
        path: the path of a stream, the id of a subscription, or the prefix of a listing.
        query: the query of the URL, without its question mark.
        host: the header `Host`, unless it is one of the others.
        client_headers: further headers.
    """

    def __init__(
        self, action: Action, path: str, query: str, host: str, client_headers: Iterable[tuple[str, str]]
    ) -> None:
        header_list = [(name.lower().encode(), value.encode()) for name, value in client_headers]
        host = next((value.decode() for name, value in header_list if name == headers.HOST), host)
        if headers.HOST not in dict(header_list):
            header_list.insert(0, (headers.HOST, host.encode()))
        if action is Action.CLOSE:
            header_list.append((headers.STREAM_CLOSED, b"true"))
        super().__init__(_METHODS[action], path, query.encode(), header_list)
        name, _, port = host.rpartition(":")
        self._scope: dict[str, Any] = {
            "type": "http",
            "method": self.method,
            "scheme": self.scheme,
            "path": f"/{path}",
            "raw_path": quote(f"/{path}").encode(),
            "query_string": query.encode(),
            "headers": header_list,
            "server": (name, int(port)) if port.isdigit() else (host, 443),
            "client": ("127.0.0.1", 0),
            EXEMPT: True,
        }

    @property
    def scheme(self) -> str:
        return "https"

    @property
    def source(self) -> Any:
        return self._scope

    def url(self) -> bytes:
        return f"https://{self._scope['server'][0]}{quote(self._scope['path'])}".encode()

    def root(self) -> str:
        return "/"

    async def read_body(self) -> bytes:
        return b""
