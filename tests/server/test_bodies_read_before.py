"""The URLs behind middleware that has read the body before it: as much of it as it likes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings

from tests.asgi_client import AsgiClient

MULTIPART = "multipart/form-data; boundary=x"
BODY = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'

GetResponse = Callable[[HttpRequest], HttpResponse]


def middleware_that(read: Callable[[HttpRequest], object]) -> Callable[[GetResponse], GetResponse]:
    """Return a middleware that does something with each request first."""

    def middleware(get_response: GetResponse) -> GetResponse:
        def pass_on(request: HttpRequest) -> HttpResponse:
            read(request)
            return get_response(request)

        return pass_on

    return middleware


form = middleware_that(lambda request: request.POST)
everything = middleware_that(lambda request: request.read())
some = middleware_that(lambda request: request.read(5))
body = middleware_that(lambda request: request.body)
body_twice = middleware_that(lambda request: (request.body, request.read(5)))
WAYS = {"form": True, "everything": True, "some": True, "body": False, "body_twice": False}
"""By name, and whether a stream that is read once has less of the body then."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    name = f"{__name__}.{request.param}"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, name]):
        yield request.param


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("kind", [MULTIPART, "application/x-www-form-urlencoded", "text/plain"])
async def test_under_asgi(engines: None, way: str, kind: str, framing: str) -> None:
    client = AsgiClient(get_asgi_application())
    made = await client.request("PUT", "a", {"content-type": kind})
    assert made.status == 201
    length = {"content-length": str(len(BODY))} if framing == "length" else {"transfer-encoding": "chunked"}
    reply = await client.request("POST", "a", {"content-type": kind, "stream-closed": "true", **length}, BODY)
    read_back = await client.get("a")
    state = (reply.status, read_back.body, "stream-closed" in read_back.headers)
    assert state == (204, BODY, True)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_under_wsgi(engines: None, way: str, framing: str) -> None:
    client = Client()
    assert client.put("/v1/stream/a", CONTENT_TYPE=MULTIPART).status_code == 201
    extra: dict[str, Any] = {"wsgi.input": BytesIO(BODY), "wsgi.input_terminated": True}
    if framing == "chunked":
        extra |= {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    reply = client.generic("POST", "/v1/stream/a", BODY, MULTIPART, headers={"Stream-Closed": "true"}, **extra)
    read_back = client.get("/v1/stream/a")
    state = (reply.status_code, read_back.content, read_back.has_header("Stream-Closed"))
    # A body in chunks is none to Django, so what reads it there has not got it.
    assert state == ((400, b"", False) if WAYS[way] and framing == "length" else (204, BODY, True))
