"""Every way by which a request reaches a handler, behind one function: what is true at one is true at all.

`asgi` is the bare application, `django` are the views under ASGI, `wsgi` the views under WSGI, and `direct` is a
connection of uvicorn's that answers by itself, or passes a request on to uvicorn.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from uvicorn.config import Config
from uvicorn.server import ServerState

from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from django_durable_streams.server.uvicorn.mount import Mount
from tests.asgi_client import ROOT, AsgiClient, Headers, Reply, encoded
from tests.server.client_end import ClientEnd

ENTRY_POINTS = ("asgi", "django", "wsgi", "direct")


class EntryPoint:
    """Sends requests through an entry point, and says which it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def request(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """Send a request and return its whole response. Headers may come several times."""
        lines = encoded(headers)
        if not any(name == b"host" for name, _ in lines):
            lines.append((b"host", b"testserver"))
        if body and not any(name == b"content-length" for name, _ in lines):
            lines.append((b"content-length", b"%d" % len(body)))
        if self.name == "wsgi":
            return await sync_to_async(_ask_wsgi)(method, target, lines, body)
        if self.name == "direct":
            return await _ask_direct(method, target, lines, body)
        application: Any = DurableStreams() if self.name == "asgi" else get_asgi_application()
        return await AsgiClient(application).request(method, target, lines, body)


def _ask_wsgi(method: str, target: str, lines: list[tuple[bytes, bytes]], body: bytes) -> Reply:
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(ROOT + path).decode("latin-1"),  # PEP 3333
        "QUERY_STRING": query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in lines:
        key = name.decode().upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        text = value.decode("latin-1")
        # What WSGI servers do with several lines.
        environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    started: list[Any] = []

    def start(status: str, header_list: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = [int(status.split()[0]), header_list]
        return lambda data: None

    answer = get_wsgi_application()(environ, start)
    try:
        content = b"".join(answer)
    finally:
        answer.close()
    return Reply(started[0], [(name.encode(), value.encode("latin-1")) for name, value in started[1]], content)


async def _ask_direct(method: str, target: str, lines: list[tuple[bytes, bytes]], body: bytes) -> Reply:
    config = Config(DurableStreams(), interface="asgi3", log_config=None, lifespan="off")
    config.load()
    protocol = FastPathConnection(
        mount=Mount(config.loaded_app, "", DurableStreams),
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
    )
    connection = ClientEnd(protocol)
    protocol.connection_made(connection)
    head = [f"{method} {ROOT}{target} HTTP/1.1".encode(), *(name + b": " + value for name, value in lines)]
    protocol.data_received(b"\r\n".join(head) + b"\r\n\r\n" + body)
    response = await connection.read(has_body=method != "HEAD")
    protocol.connection_lost(None)
    return Reply(*response)
