"""Servers that speak TLS themselves: the protocol over HTTP/1.1 and HTTP/2, and clients that take or answer nothing."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import get_args

import httpx
import pytest

from django_durable_streams.protocol.messages import ENDING_SECONDS
from tests.certificates import certificate_file
from tests.docs.pages import section, table
from tests.servers import GRACE_SECONDS, HOST, ROOT, Kind, Server

URL = "/v1/stream/notes"
TEXT = {"content-type": "text/plain"}
ONLY_HTTP_1 = {"uvicorn", "gunicorn"}
LARGE = b"x" * 600_000
"""More than the buffers of a socket, and less than a server gives away before it waits for the client."""

SILENT = {
    "response that ends the connection": f"GET {URL}?offset=-1 HTTP/1.1\r\nConnection: close\r\n",
    "response": f"GET {URL}?offset=-1 HTTP/1.1\r\n",
    "event stream": f"GET {URL}?offset=-1&live=sse HTTP/1.1\r\n",
    "nothing but the end": f"GET {URL}?offset=now&live=sse HTTP/1.1\r\n",
    "nothing": "",
}
"""Requests of clients that read nothing, by the data that the server has for them."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_file(tmp_path_factory.mktemp("tls"), HOST)


@pytest.fixture(scope="module")
def context(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(scope="module", params=get_args(Kind))
def server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Server]:
    with Server(request.param, certificate=certificate) as server:
        yield server


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_a_stream_is_written_and_followed(server: Server, context: ssl.SSLContext, version: str) -> None:
    if version == "HTTP/2" and server.kind in ONLY_HTTP_1:
        pytest.skip("it speaks HTTP/1.1 only")
    is_http2 = version == "HTTP/2"
    async with httpx.AsyncClient(base_url=server.base_url, verify=context, http2=is_http2, timeout=20) as client:
        created = await client.put(URL, headers=TEXT)
        assert (created.http_version, created.status_code) == (version, 201)
        assert created.headers["location"] == server.base_url + URL
        assert (await client.post(URL, headers=TEXT, content=LARGE)).status_code == 204
        whole = await client.get(URL, params={"offset": "-1"})
        assert whole.content == LARGE
        tail = whole.headers["stream-next-offset"]

        async def follow() -> list[str]:
            live = {"offset": tail, "live": "sse"}
            lines = []
            async with client.stream("GET", URL, params=live) as response:
                async for line in response.aiter_lines():
                    lines.append(line)
                    following.set()
                    if line == "data:more":
                        return lines
            raise AssertionError(lines)

        following = asyncio.Event()
        reader = asyncio.create_task(follow())
        waiter = asyncio.create_task(client.get(URL, params={"offset": tail, "live": "long-poll"}))
        await asyncio.wait_for(following.wait(), 10)
        assert (await client.post(URL, headers=TEXT, content=b"more")).status_code == 204
        assert "data:more" in await asyncio.wait_for(reader, 10)
        waited = await waiter
        if waited.status_code == 204:  # its time was over before
            waited = await client.get(URL, params={"offset": tail})
        assert waited.content == b"more"
        assert (await client.delete(URL)).status_code == 204


async def test_requests_of_a_connection_do_not_end_its_event_stream(server: Server, context: ssl.SSLContext) -> None:
    """Over HTTP/2 all requests have one connection, also a request that is refused before its body comes."""
    if server.kind in ONLY_HTTP_1:
        pytest.skip("it speaks HTTP/1.1 only")
    async with httpx.AsyncClient(base_url=server.base_url, verify=context, http2=True, timeout=20) as client:
        assert (await client.put(URL, headers=TEXT)).status_code == 201
        async with client.stream("GET", URL, params={"offset": "now", "live": "sse"}) as response:
            lines = response.aiter_lines()
            for number in range(20):
                refused = await client.post("/v1/stream/missing", headers=TEXT, content=b"x" * 1000)
                assert refused.status_code == 404
                accepted = await client.post(URL, headers=TEXT, content=LARGE if number % 4 == 0 else b"x" * 1000)
                assert accepted.status_code == 204
            assert (await client.post(URL, headers=TEXT, content=b"more")).status_code == 204
            async for line in lines:
                if line.startswith("data:") and line.endswith("more"):
                    break
            else:
                raise AssertionError("the event stream has ended")
        assert (await client.delete(URL)).status_code == 204


def test_the_documented_options_are_those_of_the_servers(certificate: Path) -> None:
    rows = table(section(ROOT / "docs" / "deployment" / "servers.md", "TLS without a proxy"))
    assert {server.lower() for server, *_ in rows} == set(get_args(Kind))
    for server, options, _ in rows:
        with closing(Server(server.lower(), certificate=certificate)) as unstarted:  # type: ignore[arg-type]
            command = " ".join(unstarted._command())
        names = re.findall(r"--?[a-z-]+|\w+Key=", options.partition(" in place of ")[0])
        assert len(names) >= 2
        assert all(name in command for name in names), command


@contextmanager
def silent_client(server: Server, context: ssl.SSLContext, request: str) -> Iterator[ssl.SSLSocket]:
    """A client that sends this and does not even answer the end of TLS, as one that has vanished."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((HOST, server.port))
    with context.wrap_socket(plain, server_hostname=HOST) as client:
        if request:
            client.sendall(f"{request}Host: {HOST}\r\n\r\n".encode())
        yield client


def received(client: ssl.SSLSocket, until: bytes) -> bytes:
    """Return all that a client gets, to the end of the response or to some bytes."""
    client.settimeout(10)
    data = b""
    while until not in data and (piece := client.recv(65536)):
        data += piece
    return data


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("request_head", SILENT.values(), ids=SILENT)
def test_uvicorn_ends_although_a_client_does_not_answer(
    certificate: Path, context: ssl.SSLContext, loop: str, request_head: str
) -> None:
    """Others get the ends of their event streams."""
    with Server(certificate=certificate, env={"UVICORN_LOOP": loop, "LONG_POLL_TIMEOUT": "30"}) as server:
        with httpx.Client(base_url=server.base_url, verify=context) as client:
            assert client.put(URL, headers=TEXT, content=LARGE).status_code == 201
        live = f"GET {URL}?offset=now&live=sse HTTP/1.1\r\n"
        with silent_client(server, context, request_head), silent_client(server, context, live) as reader:
            assert b"upToDate" in received(reader, b"upToDate")
            began = time.monotonic()
            status = server.stop()
            seconds = time.monotonic() - began
            assert received(reader, b"\r\n0\r\n\r\n").endswith(b"\r\n0\r\n\r\n")
        assert status == -15, server.log_tail()
        assert ENDING_SECONDS < GRACE_SECONDS
        assert seconds < GRACE_SECONDS, server.log_tail()
        assert server.log_tail() == ""
