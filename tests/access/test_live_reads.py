"""A live read ends when its permission does."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_durable_streams.access import grants
from django_durable_streams.access.ambient_credentials import CredentialVisibility
from django_durable_streams.access.identities import Identity
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission, sign
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.server.asgi import DurableStreams, Receive, Scope, Send
from tests.access.conftest import arevoke, log_in_at_django
from tests.access.operations import send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient, Exchange
from tests.overriding import override_streams
from tests.server.waiting import until

MODELS = "django_durable_streams.permissions.ModelPermissions"
OFTEN = {"POLL_INTERVAL": 0.02, "REAUTHORIZE_INTERVAL": 0.05, "AUTH_CACHE_SECONDS": 0.05, "LONG_POLL_TIMEOUT": 20}


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


@pytest.fixture
def reader(client: AsgiClient, make_user: Callable[..., User]) -> Visitor:
    return Visitor(client, log_in_at_django(make_user("reader", "view")))


@pytest.fixture
def follow(reader: Visitor) -> Callable[[], Exchange]:
    return lambda: reader.open("GET", "a?offset=-1&live=sse")


async def rest_of(exchange: Exchange) -> AsyncIterator[bytes]:
    while (chunk := await exchange.chunk()) is not None:
        yield chunk


def control(chunk: bytes) -> dict[str, object]:
    """The control event at the end of a chunk."""
    _, _, data = chunk.rpartition(b"event: control\ndata:")
    control: dict[str, object] = json.loads(data)
    return control


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_an_event_stream_ends_with_a_last_control_event_when_its_permission_is_revoked(
    reader: Visitor, follow: Callable[[], Exchange]
) -> None:
    async with follow() as exchange:
        assert b"data:abc" in (await exchange.chunk() or b"")
        await arevoke(await User.objects.aget(username="reader"), "view")
        chunks = [chunk async for chunk in rest_of(exchange)]
    assert control(chunks[-1])["streamNextOffset"] == (await Stream.objects.aget(path="a")).next_offset
    assert "streamClosed" not in control(chunks[-1])
    again = reader.open("GET", "a?offset=-1&live=sse")
    async with again:
        assert (await again.reply()).status == 403


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_a_long_poll_is_refused_when_its_permission_is_revoked(reader: Visitor) -> None:
    async with reader.open("GET", "a?offset=now&live=long-poll") as exchange:
        await asyncio.sleep(0.1)
        assert not exchange.has_more()
        await arevoke(await User.objects.aget(username="reader"), "view")
        assert (await exchange.reply()).status == 403


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_what_another_process_revokes_ends_a_live_read_too(follow: Callable[[], Exchange]) -> None:
    async with follow() as exchange:
        await exchange.chunk()
        await User.objects.filter(username="reader").aupdate(is_active=False)  # sends no signal
        assert [chunk async for chunk in rest_of(exchange)]


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_logging_out_ends_a_live_read(reader: Visitor, follow: Callable[[], Exchange]) -> None:
    async with follow() as exchange:
        await exchange.chunk()
        await sync_to_async(reader.django.logout)()
        assert [chunk async for chunk in rest_of(exchange)]


class CountingKeys(Permission):
    """Allows who sends a key, without what another site can make a browser send."""

    in_memory = True
    credential_headers = ("X-Api-Key",)
    callers: list[object] = []

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        self.callers.append(request.caller)
        return request.copy(CredentialVisibility.NOTHING).headers.get("x-api-key") == "ann"


@override_streams(PERMISSION_CLASSES="tests.access.test_live_reads.CountingKeys", **OFTEN)
async def test_a_later_check_sees_the_same_credentials_and_caller(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers: list[object] = []
    monkeypatch.setattr(CountingKeys, "callers", callers)
    async with client.open("GET", "a?offset=-1&live=sse", {"x-api-key": "ann"}) as exchange:
        assert b"data:abc" in (await exchange.chunk() or b"")
        await until(lambda: len(callers) > 2)
        assert not exchange.has_more()
    assert all(isinstance(caller, Identity) for caller in callers)


class Account:
    """Who calls by a key of middleware's own: no model, with a number that a user has, too."""

    is_authenticated = is_active = True

    def __init__(self, pk: object) -> None:
        self.pk = pk
        self.may = True

    def has_perm(self, perm: str, obj: object = None) -> bool:
        return self.may


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
@pytest.mark.parametrize("kind", ["user", "account"])
async def test_whom_middleware_has_found_is_judged_again_and_nobody_else(
    engines: None, make_user: Callable[..., User], kind: str
) -> None:
    reader = await sync_to_async(make_user)("reader", "view")
    other = await sync_to_async(make_user)("other", "view")
    django = await sync_to_async(log_in_at_django)(other)
    session = await sync_to_async(lambda: django.session)()
    await sync_to_async(session.get)("loaded")
    account = Account(other.pk)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        user = reader if kind == "user" else account
        await DurableStreams()({**scope, "user": user, "session": session}, receive, send)

    async with asyncio.timeout(10), AsgiClient(middleware).open("GET", "a?offset=-1&live=sse") as exchange:
        await exchange.chunk()
        await asyncio.sleep(0.3)
        assert not exchange.has_more()
        account.may = False
        await arevoke(reader, "view")
        assert [chunk async for chunk in rest_of(exchange)]


@override_streams(PERMISSION_CLASSES=MODELS, **OFTEN)
async def test_a_live_read_that_may_go_on_goes_on(reader: Visitor, follow: Callable[[], Exchange]) -> None:
    async with follow() as exchange:
        await exchange.chunk()
        await asyncio.sleep(0.5)  # ten looks
        assert not exchange.has_more()
        stream = await Stream.objects.aget(path="a")
        await stream.aappend("def")
        assert b"data:def" in (await exchange.chunk() or b"")


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
async def test_a_live_read_by_a_signature_ends_when_that_expires(client: AsgiClient, mode: str) -> None:
    with override_streams(
        PERMISSION_CLASSES="django_durable_streams.permissions.SignedURLs", POLL_INTERVAL=0.02, LONG_POLL_TIMEOUT=20
    ):
        moment = int(time.time()) + 2
        token = sign("a", "read", expires=moment - time.time() + 0.5)
        target = f"a?offset=now&live={mode}&token={token}"
        async with client.open("GET", target) as exchange:
            if mode == "sse":
                chunks = [chunk async for chunk in rest_of(exchange)]
                assert control(chunks[-1])["upToDate"] is True
            else:
                assert (await exchange.reply()).status == 403
            assert 0 <= time.time() - moment < 1
        assert (await client.get(target)).status == 403


async def test_nothing_is_handed_out_after_the_end(client: AsgiClient) -> None:
    # Nobody looks here but the reader itself, when something comes.
    with override_streams(
        PERMISSION_CLASSES="django_durable_streams.permissions.SignedURLs", POLL_INTERVAL=3600, SSE_DURATION=3600
    ):
        token = sign("a", "read", expires=1.5)
        async with client.open("GET", f"a?offset=now&live=sse&token={token}") as exchange:
            await exchange.chunk()
            await asyncio.sleep(1.6)
            stream = await Stream.objects.aget(path="a")
            await stream.aappend("secret")
            chunks = [chunk async for chunk in rest_of(exchange)]
    assert b"secret" not in b"".join(chunks)


class Failing(Permission):
    """Allows once, and fails then."""

    asked = 0

    async def can_read(self, user: object, path: str, request: AccessRequest) -> bool:
        Failing.asked += 1
        if Failing.asked > 1:
            raise RuntimeError("a bug")
        return True


@override_streams(PERMISSION_CLASSES="tests.access.test_live_reads.Failing", **OFTEN)
async def test_a_permission_that_fails_ends_the_read(client: AsgiClient) -> None:
    Failing.asked = 0
    async with client.open("GET", "a?offset=-1&live=sse") as exchange:
        await exchange.chunk()
        assert [chunk async for chunk in rest_of(exchange)]
    assert Failing.asked == 2


class Stuck(Permission):
    """Allows once, and does not answer then, or cannot."""

    asked = 0
    has_an_answer = False

    async def can_read(self, user: object, path: str, request: AccessRequest) -> bool:
        Stuck.asked += 1
        if Stuck.asked > 1:
            if not Stuck.has_an_answer:
                await asyncio.Event().wait()
            raise ServiceUnavailable("The service that knows is away.")
        return True


@pytest.mark.parametrize("has_an_answer", [False, True])
@pytest.mark.parametrize("mode", ["sse", "long-poll"])
@override_streams(PERMISSION_CLASSES="tests.access.test_live_reads.Stuck", **OFTEN)
async def test_a_permission_that_nobody_can_judge_again_ends_the_read(
    client: AsgiClient, mode: str, has_an_answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "UNCHECKED_SECONDS", 0.5)
    Stuck.asked, Stuck.has_an_answer = 0, has_an_answer
    async with asyncio.timeout(10), client.open("GET", f"a?offset=now&live={mode}") as exchange:
        if mode == "sse":
            assert [chunk async for chunk in rest_of(exchange)]
        else:
            assert (await exchange.reply()).status == 503
    assert Stuck.asked > 1


@override_streams(**OFTEN)
async def test_nobody_is_judged_where_everything_is_allowed(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(grants, "Grant")
    async with client.open("GET", "a?offset=-1&live=sse") as exchange:
        await exchange.chunk()
        await asyncio.sleep(0.2)
        assert not exchange.has_more()


async def is_let_in(client: AsgiClient) -> bool:
    async with client.follow("a", "now") as exchange:
        return (await exchange.head()).status == 200


@override_streams(MAX_LIVE_READERS=2, **OFTEN)
@pytest.mark.parametrize("mode", ["sse", "long-poll"])
async def test_there_is_room_for_so_many_live_readers(client: AsgiClient, mode: str) -> None:
    target = f"a?offset=now&live={mode}"
    async with client.open("GET", target), client.open("GET", target) as second:
        await asyncio.sleep(0.1)
        reply = await client.get(target)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert (await send(client, "read")).status == 200
        second.disconnect()
        async with asyncio.timeout(5):
            while not await is_let_in(client):
                pass
