"""Connections between clients and simulated processes, byte by byte: they are slow, and they break.

A process serves them with uvicorn's own protocol, as in production. Clients are coroutines of one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import h11
import uvicorn
import uvicorn.protocols.http.httptools_impl
import uvicorn.protocols.websockets.auto
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from .faults import Faults
from .images import Process
from .loops import SimulatedLoop
from .scheduler import Scheduler

HOST = "localhost"
PREFIX = "/v1/stream/"


class Lost(Exception):
    """The connection broke before the answer was there: whatever was asked for may have happened."""


class Refused(Lost):
    """There is no server: nothing has happened."""


class Server:
    """A process that serves streams.

    Args:
        process: that runs nothing yet.
        tune: called in it once its modules are loaded.
    """

    def __init__(self, process: Process, scheduler: Scheduler, tune: Callable[[], object]) -> None:
        self.process = process
        self.is_up = False
        self.has_ended = False
        self.loop: SimulatedLoop
        self.exchanges: dict[Exchange, None] = {}
        self.arrivals = itertools.count()
        self._scheduler = scheduler
        self._tune = tune
        self._lifespan: LifespanOn
        self._config: uvicorn.Config
        process.at_kill.append(self._dies)
        process.spawn(self._run, "loop")

    def __repr__(self) -> str:
        return self.process.name

    def _run(self) -> None:
        application = self.process.module("server.asgi").DurableStreams()
        self._tune()
        self._config = uvicorn.Config(
            application, interface="asgi3", http="httptools", log_config=None, access_log=False, server_header=False
        )
        self._config.load()
        self.loop = SimulatedLoop(self._scheduler)
        self.loop.set_exception_handler(self._fails)
        self.loop.run_until_complete(self._start())
        self.is_up = True
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.has_ended = True

    async def _start(self) -> None:
        self._lifespan = LifespanOn(self._config)
        await self._lifespan.startup()
        self._state = ServerState()

    def _fails(self, loop: Any, context: Mapping[str, Any]) -> None:
        if not self.process.is_dead and "exception" in context:
            self._scheduler.fail(f"An error in the event loop of {self.process}: {context['message']}: "
                                 f"{context['exception']!r}")  # fmt: skip

    def stop(self) -> None:
        """End as after SIGTERM: no new connections, then the shutdown of the application."""
        self.is_up = False

        async def stop() -> None:
            for exchange in list(self.exchanges):
                if exchange.wire is not None:
                    exchange.wire.protocol.shutdown()
            await self._lifespan.shutdown()
            self._break_all()
            self.loop.stop()

        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(stop()))

    def _dies(self) -> None:
        self.is_up = False
        self._break_all()
        if hasattr(self, "loop"):
            self.loop.close()

    def _break_all(self) -> None:
        for exchange in list(self.exchanges):
            exchange.breaks()
        self.exchanges.clear()

    def accept(self, exchange: Exchange) -> None:
        """Take a new connection, and the request on it. Called in the event loop."""
        if exchange not in self.exchanges:
            return  # the client has left meanwhile
        exchange.arrival = next(self.arrivals)
        protocol: Any = self._config.http_protocol_class(  # type: ignore[call-arg]
            config=self._config, server_state=self._state, app_state={}, _loop=self.loop
        )
        wire = exchange.wire = Wire(self, exchange, protocol)
        protocol.connection_made(wire)
        for part in exchange.parts:
            if not wire.is_closing():
                protocol.data_received(part)


class Wire(asyncio.Transport):
    """The server's end of a connection."""

    def __init__(self, server: Server, exchange: Exchange, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self._server = server
        self._exchange = exchange
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1024), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def is_closing(self) -> bool:
        return self._is_closing

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def pause_reading(self) -> None:
        """What was to be read is there already."""

    def resume_reading(self) -> None:
        """The same."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._exchange.sent(bytes(data))

    def close(self) -> None:
        if not self._is_closing:
            self._exchange.sent(None)
            self.left()

    def abort(self) -> None:
        self.close()

    def left(self) -> None:
        """The connection has ended, from whichever end."""
        if not self._is_closing:
            self._is_closing = True
            self._server.exchanges.pop(self._exchange, None)
            self._server.loop.call_soon(self.protocol.connection_lost, None)


class Way:
    """A direction in which things are sent, and when the last of them comes."""

    last = 0.0


class Network:
    """All connections of a run.

    Args:
        loop: of the clients.
    """

    def __init__(self, scheduler: Scheduler, faults: Faults, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.faults = faults
        self._scheduler = scheduler
        self._ways: dict[object, Way] = {}

    def moment(self, way: Way) -> float:
        """When something comes that is sent now: behind what was sent the same way."""
        way.last = max(self._scheduler.now + self.faults.latency(), way.last + 1e-6)
        return way.last

    def open(
        self, client: object, server: Server, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Exchange:
        """Send a request. Those of a client to the same server arrive in their order.

        Raises:
            Refused: the server is not there.
        """
        if not server.is_up:
            raise Refused
        exchange = Exchange(self, server)
        exchange.send(method, target, headers, body)

        def arrive() -> None:
            if not server.is_up:
                exchange.breaks()
            else:
                server.exchanges[exchange] = None
                server.loop.call_soon_threadsafe(server.accept, exchange)

        way = self._ways.setdefault((client, server), Way())
        self.loop.call_at(self.moment(way), arrive)
        return exchange


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:60]!r}"


class Exchange:
    """A request on a connection of its own, from the client's end."""

    def __init__(self, network: Network, server: Server) -> None:
        self.server = server
        self.arrival: int | None = None
        """The place of the request among those that this server was sent."""
        self.parts: list[bytes] = []
        self.wire: Wire | None = None
        self._network = network
        self._way = Way()
        self._connection = h11.Connection(h11.CLIENT)
        self._news = asyncio.Event()
        self._response: h11.Response | None = None
        self._chunks: list[bytes] = []
        self._is_over = False
        self._is_lost = False

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        """Write the request."""
        received = [("host", HOST), *headers.items()]
        if body or method in ("POST", "PUT"):
            received.append(("content-length", str(len(body))))
        data = self._connection.send(h11.Request(method=method, target=PREFIX + target, headers=received)) or b""
        if body:
            data += self._connection.send(h11.Data(data=body)) or b""
        self._connection.send(h11.EndOfMessage())
        self.parts.append(data)

    def sent(self, data: bytes | None) -> None:
        """The server has written something, or closed. Called in its event loop."""
        network = self._network
        if data and network.faults.happens(network.faults.rates.lost_answer):
            self.breaks()
            self._leave()
            return
        moment = network.moment(self._way)
        network.loop.call_soon_threadsafe(network.loop.call_at, moment, self._take, data)

    def breaks(self) -> None:
        """The connection is lost. Safe to call from anywhere."""
        self._network.loop.call_soon_threadsafe(self._lose)

    def leave(self) -> None:
        """Close the connection, whatever there was still to come."""
        self._lose()
        server = self.server
        if server.is_up or server.exchanges:
            try:
                server.loop.call_soon_threadsafe(self._leave)
            except RuntimeError:
                pass  # the server has ended

    def _leave(self) -> None:
        self.server.exchanges.pop(self, None)
        if self.wire is not None:
            self.wire.left()

    def _lose(self) -> None:
        self._is_lost = True
        self._news.set()

    def _take(self, data: bytes | None) -> None:
        if self._is_lost:
            return
        if data is None:
            data = b""
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._chunks.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._is_over = True
                else:
                    break
        except h11.RemoteProtocolError:
            self._is_lost = True
        self._news.set()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers.

        Raises:
            Lost
        """
        while self._response is None:
            if self._is_lost:
                raise Lost
            await self._wait()
        headers = {name.decode(): value.decode() for name, value in self._response.headers}
        return self._response.status_code, headers

    async def chunk(self) -> bytes:
        """Return what has come since the last time. Empty: that was all.

        Raises:
            Lost
        """
        while not self._chunks:
            if self._is_over:
                return b""
            if self._is_lost:
                raise Lost
            await self._wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data

    async def answer(self) -> Answer:
        """Return the whole answer, and close.

        Raises:
            Lost
        """
        status, headers = await self.head()
        body = []
        while chunk := await self.chunk():
            body.append(chunk)
        self.leave()
        return Answer(status, headers, b"".join(body))

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()
