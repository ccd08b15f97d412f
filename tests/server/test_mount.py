"""Streams inside the application that a uvicorn runs: where they are found, and that both ways lead to the same."""

from __future__ import annotations

from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.test import override_settings
from django.urls import path, re_path, register_converter
from django.urls.converters import StringConverter
from django.utils.translation import gettext_lazy

from django_durable_streams.access.base import Permission
from django_durable_streams.protocol.messages import Response
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.asgi_sending import send_response
from django_durable_streams.server.uvicorn.mount import Mount
from tests.overriding import override_streams
from tests.server.test_behind_a_proxy import WITNESS, Witness, assert_same
from tests.server.uvicorn_pair import Pair

# Django's types know views only.
route: Any = path
regex_route: Any = re_path


async def other(scope: Any, receive: Any, send: Any) -> None:
    """Another application, which says what it was called with."""
    await send_response(send, Response(202, [(b"content-length", b"%d" % len(scope["path"]))], scope["path"].encode()))


def routed(*routes: Any) -> ProtocolTypeRouter:
    """Return an application as Channels' documentation has it."""
    return ProtocolTypeRouter({"http": URLRouter([*routes, regex_route("", other)])})


class Everything(StringConverter):
    """A project's own converter, whose matches may depend on anything."""

    regex = ".+"


register_converter(Everything, "everything")

STREAMS = DurableStreams(prefix=None)

WITH_STREAMS: dict[str, Any] = {
    "alone": DurableStreams(),
    "by protocol": ProtocolTypeRouter({"http": DurableStreams(fallback=other), "websocket": other}),
    "routed": routed(route("v1/stream/<path:stream_path>", STREAMS)),
    "routed by a regex": routed(regex_route(r"^v1/stream/(?P<stream_path>.+)$", STREAMS)),
    "routed without a name": routed(regex_route("^v1/", DurableStreams(fallback=other))),
    "nested": routed(route("v1/", URLRouter([route("stream/<path:stream_path>", STREAMS), route("", other)]))),
    "in part": routed(route("v1/stream/b/<path:rest>", other), route("v1/stream/<path:stream_path>", STREAMS)),
    "with defaults": routed(route("v1/stream/<str:name>/x", STREAMS, {"stream_path": "fixed"})),
    "in parts of the path": routed(route("v1/stream/<slug:stream_path>", STREAMS)),
}


class Counting(DurableStreams):
    """A subclass that does something with each request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class ByHost(DurableStreams):
    """A subclass whose hosts have streams of their own."""

    def stream_path(self, scope: Any) -> str | None:
        stream_path = super().stream_path(scope)
        return None if stream_path is None else f"{dict(scope['headers'])[b'host'].decode()}/{stream_path}"


async def wrapper(scope: Any, receive: Any, send: Any) -> None:
    """A middleware."""
    await WITH_STREAMS["alone"](scope, receive, send)


WITHOUT_STREAMS: dict[str, Any] = {
    "a middleware": wrapper,
    "a subclass": Counting(),
    "a subclass with other paths": ByHost(),
    "a routed subclass with other paths": routed(regex_route("", ByHost())),
    "Django's URLs": DurableStreams(prefix=None, fallback=other),
    "sessions": ProtocolTypeRouter({"http": AuthMiddlewareStack(URLRouter([route("<path:stream_path>", STREAMS)]))}),
    "a middleware in a route": routed(route("v1/stream/<path:stream_path>", wrapper)),
    "a converter": routed(route("v1/stream/<everything:stream_path>", STREAMS)),
    "a translated route": routed(route(gettext_lazy("v1/stream/<path:stream_path>"), STREAMS)),
    "WebSockets only": ProtocolTypeRouter({"websocket": STREAMS}),
}

TARGETS = [
    b"/v1/stream/a",
    b"/v1/stream/a%20b/c",
    b"/v1/stream/b/c",
    b"/v1/stream/a/x",
    b"/v1/stream/",
    b"/v1/other",
    b"/",
]


@pytest.mark.parametrize("name", WITH_STREAMS)
def test_streams_are_found(name: str) -> None:
    assert Mount(WITH_STREAMS[name], "", DurableStreams).has_streams


@pytest.mark.parametrize("name", WITHOUT_STREAMS)
def test_streams_behind_other_code_are_not_found(name: str) -> None:
    mount = Mount(WITHOUT_STREAMS[name], "", DurableStreams)
    assert not mount.has_streams
    assert mount.place("/v1/stream/a") is None


@pytest.mark.usefixtures("engines", "counted_generations")
@pytest.mark.parametrize("root_path", ["", "/api", "/api/"])
@pytest.mark.parametrize("name", WITH_STREAMS)
async def test_both_ways_lead_to_the_same(name: str, root_path: str) -> None:
    pair = Pair(WITH_STREAMS[name], root_path=root_path)
    with override_streams(PERMISSION_CLASSES=WITNESS):
        for target in TARGETS:
            for lines in (b"", b"X-Forwarded-For: 198.51.100.7\r\n"):
                data = b"GET %b?x=1 HTTP/1.1\r\nHost: testserver\r\n%b\r\n" % (target, lines)
                await assert_same(pair, data)
        for target in TARGETS[:3]:
            data = b"PUT %b HTTP/1.1\r\nHost: testserver\r\n\r\n" % target
            plain = await pair.plain(data)
            await pair.plain(data.replace(b"PUT", b"DELETE"))
            assert await pair.fast(data) == plain
            await pair.plain(data.replace(b"PUT", b"DELETE"))


@pytest.mark.usefixtures("engines")
async def test_routed_streams_are_served_by_the_fast_path() -> None:
    pair = Pair(WITH_STREAMS["in part"])
    create = b"PUT /v1/stream/%b HTTP/1.1\r\nHost: testserver\r\n\r\n"
    with override_streams(PERMISSION_CLASSES=WITNESS):
        assert await pair.handed_over(create % b"a") == []
        assert Witness.seen[-1]["scope"]["url_route"] == {"args": (), "kwargs": {"stream_path": "a"}}
        assert await pair.handed_over(create % b"b/c") == ["other_path"]


class Remembering(Permission):
    """Notes the caller among the arguments of the route, as code does that takes a scope for its own request's."""

    in_memory = True
    needs_user = False
    noted_callers: list[Any] = []

    def can_read(self, user: Any, path: str, request: Any) -> bool:
        arguments = request.scope["url_route"]["kwargs"]
        self.noted_callers.append(arguments.get("caller"))
        arguments["caller"] = request.header(b"x-caller")
        return True


@pytest.mark.usefixtures("engines")
async def test_no_request_sees_the_arguments_that_another_one_has_changed() -> None:
    pair = Pair(WITH_STREAMS["routed"])
    with override_streams(PERMISSION_CLASSES=f"{__name__}.Remembering"):
        for caller in (b"anna", b"ben"):
            await pair.fast(b"GET /v1/stream/a HTTP/1.1\r\nHost: testserver\r\nX-Caller: %b\r\n\r\n" % caller)
    assert Remembering.noted_callers == [None, None]


@pytest.mark.usefixtures("engines", "counted_generations")
@pytest.mark.parametrize("script_name", ["/site", "/site/", "/v1", "/api"])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_a_script_name_leads_to_the_same(script_name: str, root_path: str) -> None:
    with override_settings(FORCE_SCRIPT_NAME=script_name):
        pair = Pair(DurableStreams(fallback=other), root_path=root_path)
        for target in (b"/v1/stream/a", b"/site/v1/stream/a", b"/api/v1/stream/a", b"/v1/v1/stream/a", b"/site"):
            data = b"PUT %b HTTP/1.1\r\nHost: testserver\r\n\r\n" % target
            plain = await pair.plain(data)
            await pair.plain(data.replace(b"PUT", b"DELETE"))
            assert await pair.fast(data) == plain
            await pair.plain(data.replace(b"PUT", b"DELETE"))


def test_a_path_is_looked_up_once_unless_it_is_new_or_long() -> None:
    mount = Mount(DurableStreams(), "", DurableStreams)
    assert mount.place("/v1/stream/a") is mount.place("/v1/stream/a")
    assert mount.place("/v1/stream/b", is_new=True) is not mount.place("/v1/stream/b", is_new=True)
    long_path = "/v1/stream/" + "a" * 2000
    assert mount.place(long_path) == mount.place(long_path)
    assert mount._cached_place.cache_info().currsize == 1
