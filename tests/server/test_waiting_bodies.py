"""Bodies that wait for the permission of their request, and permissions that end while a body arrives."""

import asyncio
import io
import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.wsgi import get_wsgi_application

from django_durable_streams.access import bearer
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from django_durable_streams.server import dispatch
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.bodies import memory
from tests.access.test_bearer_tokens import BEARER, token
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.server.test_fast_path import Connection, connected, status
from tests.server.waiting import until

LIMIT = 200_000
PART, REST = 60_000, 10
HEAD = b"POST /v1/stream/a HTTP/1.1\r\nhost: testserver\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"

pytestmark = pytest.mark.usefixtures("engines", "transactional_db")


class Slow(Permission):
    """Decides when the test lets it."""

    needs_user = False
    decides = Event()
    allows = True

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        self.decides.wait(30)
        return type(self).allows


class SlowInLoop(Slow):
    """The same in a coroutine."""

    async def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:  # type: ignore[override]
        while not self.decides.is_set():  # noqa: ASYNC110 - it is set in a thread, too
            await asyncio.sleep(0.001)
        return type(self).allows


@pytest.fixture(params=[Slow, SlowInLoop])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    kind: Any = request.param
    monkeypatch.setattr(kind, "decides", Event())
    monkeypatch.setattr(kind, "allows", True)
    options = {"PERMISSION_CLASSES": f"{__name__}.{kind.__name__}"}
    with override_streams(MAX_BODY_MEMORY=LIMIT, MAX_APPEND_BYTES=LIMIT, **options):
        yield kind
        kind.decides.set()


async def begin(whole: bool) -> Any:
    """Send a request with PART bytes of body: all of them, or all but REST."""
    protocol, connection = connected()
    protocol.data_received(HEAD % (PART if whole else PART + REST) + bytes(PART))
    for _ in range(3):  # a permission that is a coroutine is asked in a task
        await asyncio.sleep(0)
    return protocol, connection


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("allows", [True, False])
async def test_what_waits_for_a_permission_counts_towards_the_limit_and_what_has_no_room_is_dropped(
    slow: Any, whole: bool, allows: bool
) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain")
    clients = [await begin(whole) for _ in range(3)]
    assert memory.held == 3 * PART
    late_protocol, late = await begin(whole)
    assert memory.held == 3 * PART
    assert late_protocol._held_data == []
    slow.allows = allows
    slow.decides.set()
    # Whether there is room is told only to those who may append.
    assert await status(late) == (503 if allows else 403)
    for protocol, connection in clients:
        if allows and not whole:
            protocol.data_received(bytes(REST))
        assert await status(connection) == (204 if allows else 403)
    assert memory.held == 0
    tail = (await Stream.objects.aget(path="a")).tail_position
    assert tail == (3 * (PART + (0 if whole else REST)) if allows else 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_client_that_leaves_meanwhile_gives_the_memory_back(slow: Any, whole: bool) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain")
    protocol, connection = await begin(whole)
    assert memory.held == PART
    connection.is_closed = True
    protocol.connection_lost(None)
    slow.decides.set()
    await until(lambda: memory.held == 0)


class Pausing(Connection):
    """A connection that counts whether it is read."""

    is_read = True

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


@pytest.mark.parametrize("first", [b"", b"x"])
@pytest.mark.parametrize("allows", [True, False])
async def test_nothing_more_is_read_until_the_permission_is_known(slow: Any, first: bytes, allows: bool) -> None:
    await Stream.objects.acreate(path="a", content_type="text/plain")
    protocol, _ = connected()
    connection = Pausing()
    protocol.connection_made(connection)
    protocol.data_received(HEAD % 10 + first)
    assert not connection.is_read
    slow.allows = allows
    slow.decides.set()
    if allows:
        await until(lambda: connection.is_read)
        protocol.data_received(bytes(10 - len(first)))
        assert await status(connection) == 204
    else:
        assert await status(connection) == 403
        await until(lambda: connection.is_read)
        protocol.data_received(bytes(10 - len(first)))  # dropped
    # The connection goes on.
    protocol.data_received(HEAD % 1 + b"x")
    assert await status(connection) == (204 if allows else 403)


class Ending(Permission):
    """Allows as long as `allows` has the action."""

    in_memory = True
    needs_user = False
    allows: set[str] = set()
    asked = 0

    def can_append(self, user: Any, path: str, request: AccessRequest) -> bool:
        type(self).asked += 1
        return "append" in self.allows

    def can_close(self, user: Any, path: str, request: AccessRequest) -> bool:
        return "close" in self.allows

    def can_create(self, user: Any, path: str, request: AccessRequest) -> bool:
        type(self).asked += 1
        return "create" in self.allows


class EndingInThread(Ending):
    """The same in a thread."""

    in_memory = False


Upload = Callable[[str, dict[str, str], Callable[[], object]], Any]


async def upload_by_asgi(method: str, fields: dict[str, str], between: Callable[[], object]) -> int:
    """Send a body in two parts with something between them, and return the status."""
    sent: list[Any] = []
    parts = [b"one", b"two"]

    async def receive() -> Any:
        if len(parts) == 1:
            between()
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(b"host", b"testserver"), (b"content-length", b"6")]
    lines += [(name.encode(), value.encode()) for name, value in fields.items()]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": "/v1/stream/a",
        "query_string": b"",
        "headers": lines,
        "client": ("127.0.0.1", 1),
    }
    await DurableStreams()(scope, receive, send)
    return int(sent[0]["status"])


async def upload_directly(method: str, fields: dict[str, str], between: Callable[[], object]) -> int:
    protocol, connection = connected()
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"{method} /v1/stream/a HTTP/1.1\r\nhost: testserver\r\ncontent-length: 6\r\n{lines}\r\n"
    protocol.data_received(head.encode() + b"one")
    await until(lambda: protocol._upload is not None)
    between()
    protocol.data_received(b"two")
    return await status(connection)


class TwoParts(io.RawIOBase):
    def __init__(self, between: Callable[[], object]) -> None:
        self._parts = [b"one", b"two"]
        self._between = between

    def read(self, size: int = -1) -> bytes:
        if len(self._parts) == 1:
            self._between()
        return self._parts.pop(0) if self._parts else b""


async def upload_by_wsgi(method: str, fields: dict[str, str], between: Callable[[], object]) -> int:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/v1/stream/a",
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": "6",
        "wsgi.url_scheme": "http",
        "wsgi.input": TwoParts(between),
        "wsgi.errors": io.StringIO(),
    }
    for name, value in fields.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    started: list[str] = []

    def start(line: str, *rest: Any) -> Any:
        started.append(line)

    def ask() -> None:
        answer = get_wsgi_application()(environ, start)
        b"".join(answer)
        answer.close()

    await sync_to_async(ask)()
    return int(started[0].split()[0])


UPLOADS: dict[str, Upload] = {"asgi": upload_by_asgi, "direct": upload_directly, "wsgi": upload_by_wsgi}
TEXT = {"content-type": "text/plain"}
CLOSING = {**TEXT, "stream-closed": "true"}


@pytest.fixture(params=[Ending, EndingInThread])
def ending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    kind: Any = request.param
    monkeypatch.setattr(kind, "allows", {"append", "close", "create"})
    monkeypatch.setattr(kind, "asked", 0)
    monkeypatch.setattr(dispatch, "LONG_UPLOAD_SECONDS", 0.0)
    with override_streams(PERMISSION_CLASSES=f"{__name__}.{kind.__name__}"):
        yield kind


@pytest.mark.parametrize("entry", UPLOADS)
@pytest.mark.parametrize(
    ("method", "fields", "lost", "expected"),
    [
        ("POST", TEXT, "append", 403),
        ("POST", CLOSING, "append", 403),  # a close without data would still be allowed
        ("POST", CLOSING, "close", 403),
        ("PUT", TEXT, "create", 403),
        ("POST", TEXT, "nothing", 204),
        ("POST", CLOSING, "nothing", 204),
        ("PUT", TEXT, "nothing", 201),
    ],
)
async def test_a_permission_that_ends_while_a_slow_body_arrives_is_not_outlived(
    ending: Any, entry: str, method: str, fields: dict[str, str], lost: str, expected: int
) -> None:
    if method == "POST":
        await Stream.objects.acreate(path="a", content_type="text/plain")
    assert await UPLOADS[entry](method, fields, lambda: ending.allows.discard(lost)) == expected
    stream = await Stream.objects.filter(path="a").afirst()
    if expected == 403:
        assert stream is None or (stream.tail_position, stream.closed) == (0, False)
    else:
        assert stream is not None
        assert (stream.tail_position, stream.closed) == (6, fields is CLOSING)
    assert memory.held == 0


@pytest.mark.parametrize("entry", UPLOADS)
async def test_a_permission_that_comes_back_allows_data_again(ending: Any, entry: str) -> None:
    """Only the last decision counts, also of whether a close may carry data."""
    await Stream.objects.acreate(path="a", content_type="text/plain")
    ending.allows.discard("append")
    assert await UPLOADS[entry]("POST", CLOSING, lambda: ending.allows.add("append")) == 204
    assert (await Stream.objects.aget(path="a")).tail_position == 6


@pytest.mark.parametrize("entry", UPLOADS)
async def test_a_quick_body_is_checked_once(ending: Any, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "LONG_UPLOAD_SECONDS", 60.0)
    await Stream.objects.acreate(path="a", content_type="text/plain")
    assert await UPLOADS[entry]("POST", TEXT, lambda: None) == 204
    assert ending.asked == 1


@pytest.mark.parametrize("entry", UPLOADS)
@pytest.mark.parametrize("expires", [True, False])
async def test_a_token_that_expires_while_a_slow_body_arrives_is_not_outlived(
    entry: str, expires: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LONG_UPLOAD_SECONDS", 0.0)
    await Stream.objects.acreate(path="a", content_type="text/plain")
    now = time.time()
    fields = {**TEXT, "authorization": f"Bearer {token({'append': ['a']})}"}

    def pass_time() -> None:
        if expires:
            monkeypatch.setattr(bearer, "time", SimpleNamespace(time=lambda: now + 3600))

    with override_streams(PERMISSION_CLASSES=BEARER):
        assert await UPLOADS[entry]("POST", fields, pass_time) == (401 if expires else 204)


async def test_a_long_body_counts_even_if_it_arrives_in_one_message() -> None:
    """Some servers and middleware collect the whole body. Long JSON then waits for a thread that prepares it."""
    client = AsgiClient(DurableStreams())
    await client.create("a", kind="application/json")
    body = b'"' + bytes(70_000).replace(b"\0", b"x") + b'"'
    with override_streams(MAX_BODY_MEMORY=LIMIT, MAX_APPEND_BYTES=LIMIT):
        others = LIMIT - len(body) + 1
        memory.reserve(others)
        try:
            assert (await client.append("a", body, "application/json")).status == 503
        finally:
            memory.release(others)
        assert (await client.append("a", body, "application/json")).status == 204
    assert memory.held == 0
