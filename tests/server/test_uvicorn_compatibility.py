"""Versions of uvicorn that lack a part of what our connections build on."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.uvicorn import compatibility, installation
from django_durable_streams.server.uvicorn.connection import CountedConnection
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from tests.server.test_fast_path import Connection
from tests.server.uvicorn_pair import exits


def server_of(app: object = None) -> LifespanOn:
    """Return the part of a uvicorn that calls an application for its lifespan."""
    config = Config(app or DurableStreams(), http="httptools", interface="asgi3", log_config=None, proxy_headers=False)  # type: ignore[arg-type]
    config.load()
    return LifespanOn(config)


def connections_of(server: LifespanOn) -> object:
    made = server.config.http_protocol_class
    return getattr(made, "func", made)


def test_this_uvicorn_has_all_parts(caplog: pytest.LogCaptureFixture) -> None:
    server = server_of()
    assert compatibility.missing_parts(server.config) == []
    installation.install(server, DurableStreams)
    assert connections_of(server) is FastPathConnection
    assert caplog.records == []


async def wrapper(scope: Any, receive: Any, send: Any) -> None:
    """A middleware that is never called."""


def test_behind_a_wrapper_connections_have_limits_only() -> None:
    server = server_of(wrapper)
    installation.install(server, DurableStreams)
    assert connections_of(server) is CountedConnection
    before = exits("wrapper")

    async def ask() -> None:
        made = CountedConnection(
            config=server.config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        made.connection_made(Connection())
        made.data_received(b"GET / HTTP/1.1\r\nHost: testserver\r\n\r\n")
        made.connection_lost(None)

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(CountedConnection, "_start_asgi_task", lambda *args: None)
        asyncio.run(ask())
    assert exits("wrapper") == before + 1


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (HttpToolsProtocol, "_unset_keepalive_if_required"),
        (HttpToolsProtocol, "timeout_keep_alive_handler"),
        (FlowControl, "drain"),
    ],
)
def test_without_a_method_requests_go_through_asgi(
    kind: type, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_of()
    monkeypatch.delattr(kind, part)
    with caplog.at_level(logging.WARNING):
        installation.install(server, DurableStreams)
    assert connections_of(server) is HttpToolsProtocol
    (record,) = caplog.records
    assert f"It has no {kind.__name__}.{part}. Requests go through ASGI" in record.getMessage()


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (HttpToolsProtocol, "pipeline"),
        (HttpToolsProtocol, "timeout_keep_alive_task"),
        (RequestResponseCycle, "response_complete"),
        (ServerState, "default_headers"),
    ],
)
def test_without_an_attribute_requests_go_through_asgi(
    kind: type, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_attributes(self: object) -> None:
        """A constructor that sets none of the attributes."""

    server = server_of()
    monkeypatch.setattr(kind, "__init__", without_attributes)
    with caplog.at_level(logging.WARNING):
        installation.install(server, DurableStreams)
    assert connections_of(server) is HttpToolsProtocol
    (record,) = caplog.records
    assert f"{kind.__name__}.{part}" in record.getMessage()


def test_without_an_attribute_of_its_configuration_requests_go_through_asgi(caplog: pytest.LogCaptureFixture) -> None:
    server = server_of()
    del server.config.root_path
    with caplog.at_level(logging.WARNING):
        installation.install(server, DurableStreams)
    assert connections_of(server) is HttpToolsProtocol
    assert [record.getMessage().count("Config.root_path") for record in caplog.records] == [1]


def test_without_a_class_requests_go_through_asgi(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = server_of()
    monkeypatch.delattr("uvicorn.protocols.http.httptools_impl.RequestResponseCycle")
    with caplog.at_level(logging.WARNING):
        installation.install(server, DurableStreams)
    assert connections_of(server) is HttpToolsProtocol
    assert [record.getMessage().count("RequestResponseCycle") for record in caplog.records] == [1]


def test_every_part_in_use_is_one_that_a_connection_has() -> None:
    """The list names real parts: each of them is there on a connection that is made."""

    async def connect() -> HttpToolsProtocol:
        config = server_of().config
        protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(asyncio.Transport())
        return protocol

    protocol = asyncio.run(connect())
    for name in compatibility.PARTS[HttpToolsProtocol].split():
        assert hasattr(protocol, name), name
    for name in compatibility.PARTS[FlowControl].split():
        assert hasattr(protocol.flow, name), name
