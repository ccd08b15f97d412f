"""The lifespan: the streams' own, and that of the application behind them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_durable_streams.engine.engine import engine_for, running_engines
from django_durable_streams.models import Stream
from django_durable_streams.server.asgi import Application, DurableStreams
from tests import preloaded
from tests.asgi_client import AsgiClient
from tests.servers import EXAMPLE, example_environment, migrated_sqlite_file

Message = MutableMapping[str, Any]
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class LifespanServer:
    """A server's side of a lifespan."""

    def __init__(self, application: Application) -> None:
        self.state: dict[str, Any] = {}
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        self.task = asyncio.ensure_future(application(scope, self.messages.get, self.sent.put))

    async def tell(self, kind: str) -> Message:
        """Send a message and return the answer, or how the application has ended without one."""
        self.messages.put_nowait({"type": f"lifespan.{kind}"})
        answer = asyncio.ensure_future(self.sent.get())
        await asyncio.wait([answer, self.task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        raise AssertionError(f"ended without an answer: {self.task!r}")

    async def run(self) -> list[str]:
        """Start and shut down, and return what was answered."""
        answers = [(await self.tell("startup"))["type"], (await self.tell("shutdown"))["type"]]
        await self.task
        return answers


class Behind:
    """An application with a lifespan, as frameworks have it: a context around all that is served."""

    def __init__(self, startup: Exception | None = None, shutdown: Exception | None = None) -> None:
        self.events: list[str] = []
        self.errors = {"startup": startup, "shutdown": shutdown}
        self.at_shutdown: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            if (error := self.errors[kind]) is not None:
                await send({"type": f"lifespan.{kind}.failed", "message": str(error)})
                raise error
            if kind == "startup":
                scope["state"]["pool"] = "open"
            elif self.at_shutdown is not None:
                await self.at_shutdown()
            self.events.append(kind)
            await send({"type": f"lifespan.{kind}.complete"})
        self.events.append("returned")


async def test_the_application_behind_has_its_lifespan(engines: None) -> None:
    behind = Behind()
    server = LifespanServer(DurableStreams(fallback=behind))
    assert (await server.tell("startup"))["type"] == COMPLETE[0]
    assert (behind.events, server.state) == (["startup"], {"pool": "open"})
    assert (await server.tell("shutdown"))["type"] == COMPLETE[1]
    await server.task
    assert behind.events == ["startup", "shutdown", "returned"]


@pytest.mark.parametrize("kind", ["startup", "shutdown"])
async def test_what_it_says_of_its_failure_is_handed_on(engines: None, kind: str) -> None:
    behind = Behind(**{kind: ValueError("no pool")})
    server = LifespanServer(DurableStreams(fallback=behind))
    answer = await server.tell("startup")
    if kind == "shutdown":
        assert answer["type"] == COMPLETE[0]
        answer = await server.tell("shutdown")
    assert answer == {"type": f"lifespan.{kind}.failed", "message": "no pool"}
    await server.task
    assert running_engines() == []


async def returns_at_once(scope: Message, receive: Any, send: Any) -> None:
    pass


async def refuses(scope: Message, receive: Any, send: Any) -> None:
    raise NotImplementedError(scope["type"])


async def refuses_after_a_look(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    raise TypeError("a bug")


async def breaks_later(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise TypeError("a bug")


async def forgets_to_answer_the_end(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def says_too_much(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.startup.complete"})


async def lingers(scope: Message, receive: Any, send: Any) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})
    await asyncio.Event().wait()


UNSUPPORTED: list[Any] = [
    returns_at_once,
    refuses,
    refuses_after_a_look,
    breaks_later,
    forgets_to_answer_the_end,
    says_too_much,
    lingers,
    get_asgi_application(),
    ProtocolTypeRouter({"http": get_asgi_application()}),
    None,
]


@pytest.mark.parametrize("application", UNSUPPORTED, ids=lambda one: getattr(one, "__name__", type(one).__name__))
async def test_one_that_knows_no_lifespan_or_breaks_does_not_break_ours(engines: None, application: Any) -> None:
    assert await LifespanServer(DurableStreams(fallback=application)).run() == COMPLETE
    assert running_engines() == []


async def test_its_end_may_still_write_to_streams(engines: None) -> None:
    stream = await Stream.objects.acreate(path="a", content_type="text/plain")
    behind = Behind()

    async def say_goodbye() -> None:
        async with stream.awriter() as writer:
            await writer.write("goodbye")

    behind.at_shutdown = say_goodbye
    engine_for()
    assert await LifespanServer(DurableStreams(fallback=behind)).run() == COMPLETE
    assert [message async for message in stream.aread()] == ["goodbye"]
    assert running_engines() == []


async def test_a_server_that_gives_up_takes_it_along(engines: None) -> None:
    ended = asyncio.Event()

    async def waits(scope: Message, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    server = LifespanServer(DurableStreams(fallback=waits))
    server.messages.put_nowait({"type": "lifespan.startup"})
    for _ in range(5):
        await asyncio.sleep(0)
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task
    assert ended.is_set()


async def test_one_of_two_servers_ends_and_the_other_goes_on(engines: None) -> None:
    first, second = LifespanServer(DurableStreams()), LifespanServer(DurableStreams())
    for server in (first, second):
        assert (await server.tell("startup"))["type"] == COMPLETE[0]
    engine = engine_for()
    assert (await first.tell("shutdown"))["type"] == COMPLETE[1]
    assert running_engines() == [engine]
    client = AsgiClient(DurableStreams())
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        assert await live.chunk()
        await client.append("a", b"def")
        assert b"def" in await live.chunk()  # type: ignore[operator]
    assert (await second.tell("shutdown"))["type"] == COMPLETE[1]
    assert running_engines() == []


async def test_servers_one_after_the_other_are_served_alike(engines: None) -> None:
    for number in range(3):
        server = LifespanServer(DurableStreams())
        await server.tell("startup")
        client = AsgiClient(DurableStreams())
        await client.create(f"{number}", b"abc")
        async with client.follow(f"{number}") as live:
            assert await live.chunk()
            await client.append(f"{number}", b"def")
            assert b"def" in await live.chunk()  # type: ignore[operator]
            await server.tell("shutdown")
            await live.reply()


SERVE = """
import asyncio, sys
if sys.argv[3] == "missing":
    sys.modules["httptools"] = None
import django, uvicorn
django.setup()
from django_durable_streams.server.asgi import DurableStreams

async def behind(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"].get("pool", "none").encode()})
        return
    await receive()
    scope["state"]["pool"] = "open"
    print("started", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("stopped", flush=True)
    await send({"type": "lifespan.shutdown.complete"})

async def main():
    http = "auto" if sys.argv[3] == "missing" else sys.argv[3]
    config = uvicorn.Config(DurableStreams(fallback=behind), port=0, http=http, lifespan=sys.argv[2], log_level="info")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        if serving.done():
            return
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    print("state-" + ("open" if b"open" in await reader.read() else "none"), flush=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/stream/none HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    print((await reader.read()).split(b" ")[1].decode(), flush=True)
    server.should_exit = True
    await serving

asyncio.run(main())
"""


@pytest.mark.parametrize("http", ["httptools", "h11", "missing"])
@pytest.mark.parametrize("lifespan", ["on", "auto", "off"])
def test_under_uvicorn(lifespan: str, http: str) -> None:
    environment = example_environment({"DATABASE_URL": f"sqlite:///{migrated_sqlite_file()}", "ALLOWED_HOSTS": "*"})
    command = [sys.executable, "-c", SERVE, "serve", lifespan, http]
    if http == "missing":  # a new interpreter has not imported it
        done = subprocess.run(
            command, cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    else:
        done = preloaded.run(command, cwd=EXAMPLE, env=environment, timeout=60)
    assert "unsupported" not in done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.split()
    assert "404" in lines
    if lifespan == "off":
        assert "started" not in lines
    else:
        assert (lines[0], lines[-1]) == ("started", "stopped")
        assert "state-open" in lines
