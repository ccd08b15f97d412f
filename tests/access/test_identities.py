"""Who is asking, and for how long that is remembered."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpRequest
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_durable_streams.access import sessions
from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.access.guard import Guard, current_guard
from django_durable_streams.conf import config
from django_durable_streams.models import Stream
from django_durable_streams.permissions import SignedURLs
from django_durable_streams.server.asgi import DurableStreams
from tests.access.conftest import grant, log_in_at_django, revoke
from tests.access.operations import send
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

CLOSED = override_streams(
    PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions", AUTH_CACHE_SECONDS=3600
)
BRIEFLY = override_streams(
    PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions", AUTH_CACHE_SECONDS=0
)


@pytest.fixture(autouse=True)
def streams(transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")


@pytest.fixture
def direct(engines: None) -> AsgiClient:
    return AsgiClient(DurableStreams())


@pytest.fixture
def visitor(direct: AsgiClient, make_user: Callable[..., User]) -> Visitor:
    return Visitor(direct, log_in_at_django(make_user("reader", "view")))


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What was looked up together, one after the other."""
    lookups: list[set[str]] = []
    load = sessions.load_sessions

    def record(keys: set[str]) -> Any:
        lookups.append(set(keys))
        return load(keys)

    monkeypatch.setattr(sessions, "load_sessions", record)
    return lookups


@pytest.mark.parametrize(
    "engine",
    [
        "django.contrib.sessions.backends.db",
        "django.contrib.sessions.backends.cache",
        "django.contrib.sessions.backends.cached_db",
        "django.contrib.sessions.backends.file",
        "django.contrib.sessions.backends.signed_cookies",
    ],
)
async def test_every_session_engine_of_django_will_do(
    direct: AsgiClient, make_user: Callable[..., User], engine: str
) -> None:
    user = await sync_to_async(make_user)("reader", "view")
    with CLOSED, override_settings(SESSION_ENGINE=engine):
        visitor = Visitor(direct, await sync_to_async(log_in_at_django)(user))
        assert (await send(visitor, "read")).status == 200
        broken = {"cookie": visitor.headers["cookie"].replace("sessionid=", "sessionid=x")}
        assert (await send(visitor, "read", headers=broken)).status == 403


async def test_a_session_is_looked_up_once_in_its_time(visitor: Visitor, lookups: list[set[str]]) -> None:
    with CLOSED:
        replies = await asyncio.gather(*(send(visitor, "read") for _ in range(20)))
        for _ in range(5):
            replies.append(await send(visitor, "read"))
    assert {reply.status for reply in replies} == {200}
    assert len(lookups) <= 2  # the first, and those that came while it was under way


async def test_sessions_that_come_together_are_looked_up_together(
    direct: AsgiClient, make_user: Callable[..., User], lookups: list[set[str]]
) -> None:
    def enter(number: int) -> Visitor:
        return Visitor(direct, log_in_at_django(make_user(f"user-{number}", "view")))

    visitors = [await sync_to_async(enter)(number) for number in range(30)]
    with CLOSED:
        replies = await asyncio.gather(*(send(visitor, "read") for visitor in visitors))
    assert {reply.status for reply in replies} == {200}
    assert len(lookups) < 10


def test_sessions_and_users_cost_the_same_queries_however_many(make_user: Callable[..., User]) -> None:
    clients = [log_in_at_django(make_user(f"user-{number}")) for number in range(20)]
    keys = [client.cookies["sessionid"].value for client in clients]
    for wanted in (keys[:1], keys):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            users = sessions.users_of(sessions.load_sessions(wanted))
        assert len(users) == len(wanted)
        assert len(queries) == 2


async def test_what_changes_unseen_counts_when_the_time_is_over(visitor: Visitor) -> None:
    # An update sends no signal, and so is to this process as if it were made by another one.
    with override_streams(PERMISSION_CLASSES=config_of_models(), AUTH_CACHE_SECONDS=0.2):
        assert (await send(visitor, "read")).status == 200
        await User.objects.filter(username="reader").aupdate(is_active=False)
        await asyncio.sleep(0.25)
        assert (await send(visitor, "read")).status == 403


def config_of_models() -> str:
    return "django_durable_streams.permissions.ModelPermissions"


Change = Callable[[User, Visitor], object]
CHANGES: dict[str, Change] = {
    "a permission is taken": lambda user, visitor: revoke(user, "view"),
    "the user is not active any more": lambda user, visitor: deactivate(user),
    "the user is deleted": lambda user, visitor: user.delete(),
    "the password is changed": lambda user, visitor: change_password(user),
    "the session is deleted": lambda user, visitor: Session.objects.all().delete(),
    "the user logs out": lambda user, visitor: visitor.django.logout(),
}


def deactivate(user: User) -> None:
    user.is_active = False
    user.save()


def change_password(user: User) -> None:
    user.set_password("other")
    user.save()


@pytest.mark.parametrize("change", CHANGES)
async def test_what_this_process_changes_counts_at_once(visitor: Visitor, change: str) -> None:
    user = await User.objects.aget(username="reader")
    headers = visitor.headers
    with CLOSED:
        assert (await send(visitor.client, "read", headers=headers)).status == 200
        await sync_to_async(CHANGES[change])(user, visitor)
        assert (await send(visitor.client, "read", headers=headers)).status == 403


async def test_groups_count_at_once_too(direct: AsgiClient, make_user: Callable[..., User]) -> None:
    user = await sync_to_async(make_user)("member")
    visitor = Visitor(direct, await sync_to_async(log_in_at_django)(user))
    group = await Group.objects.acreate(name="readers")
    with CLOSED:
        assert (await send(visitor, "read")).status == 403
        await user.groups.aadd(group)
        assert (await send(visitor, "read")).status == 403
        await group.permissions.aadd(await Permission.objects.aget(codename="view_stream"))
        assert (await send(visitor, "read")).status == 200
        await group.adelete()
        assert (await send(visitor, "read")).status == 403


async def test_a_session_that_is_ending_is_not_remembered_in_its_last_moment(
    visitor: Visitor, lookups: list[set[str]]
) -> None:
    key = visitor.django.cookies["sessionid"].value
    with CLOSED:
        guard = current_guard()
        assert guard is not None
        # As logging out does: it tells of it first, and deletes the session then.
        guard.identities.invalidate(key=key)
        for _ in range(3):
            assert (await send(visitor, "read")).status == 200
    assert len(lookups) == 3


async def test_logging_in_makes_somebody_of_nobody_at_once(direct: AsgiClient, make_user: Callable[..., User]) -> None:
    user = await sync_to_async(make_user)("reader", "view")
    with CLOSED:
        assert (await send(direct, "read")).status == 403
        visitor = Visitor(direct, await sync_to_async(log_in_at_django)(user))
        assert (await send(visitor, "read")).status == 200
        assert (await send(direct, "read")).status == 403


@pytest.mark.parametrize(
    "cookie",
    ["", "sessionid", "sessionid=", "sessionid=short", "sessionid=" + "x" * 5000, "x=1; y", "sessionid=\xff\xfe" * 4],
)
async def test_cookies_that_mean_nothing_are_nobodys(direct: AsgiClient, cookie: str) -> None:
    with CLOSED:
        assert (await send(direct, "read", headers={"cookie": cookie})).status == 403


async def test_cookies_may_come_in_several_lines(visitor: Visitor) -> None:
    lines = [(b"cookie", part.strip().encode()) for part in visitor.headers["cookie"].split(";")]
    with CLOSED:
        assert len(lines) == 2
        assert (await visitor.client.request("GET", "a", [*lines, (b"cookie", b"z=1")])).status == 200


async def test_a_session_of_an_old_key_is_good_while_the_key_is_kept(
    direct: AsgiClient, make_user: Callable[..., User]
) -> None:
    user = await sync_to_async(make_user)("reader", "view")
    visitor = Visitor(direct, await sync_to_async(log_in_at_django)(user))
    with CLOSED:
        with override_settings(SECRET_KEY="new"):
            assert (await send(visitor, "read")).status == 403
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            assert (await send(visitor, "read")).status == 200


async def test_backends_that_are_not_configured_any_more_log_nobody_in(visitor: Visitor) -> None:
    with CLOSED, override_settings(AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend"]):
        assert (await send(visitor, "read")).status == 403


async def test_users_of_backends_that_load_them_their_own_way_are_found(
    direct: AsgiClient, make_user: Callable[..., User]
) -> None:
    backend = "tests.access.backends.OwnBackend"
    user = await sync_to_async(make_user)("reader", "view")
    with CLOSED, override_settings(AUTHENTICATION_BACKENDS=[backend]):
        visitor = Visitor(direct, await sync_to_async(log_in_at_django)(user))
        assert (await send(visitor, "read")).status == 200


async def test_the_user_may_come_from_channels(visitor: Visitor) -> None:
    stack = AsgiClient(AuthMiddlewareStack(DurableStreams()))
    through = Visitor(stack, visitor.django)
    with BRIEFLY:
        assert (await send(stack, "read")).status == 403
        assert (await send(through, "read")).status == 200
        assert (await send(through, "append")).status == 403
        await sync_to_async(grant)(await User.objects.aget(username="reader"), "change")
        assert (await send(through, "append")).status == 204
        through.csrf = False
        assert (await send(through, "append")).status == 403


async def test_the_user_at_the_urls_is_the_one_of_the_middleware(engines: None, make_user: Callable[..., User]) -> None:
    await sync_to_async(make_user)("somebody", "view")
    middleware = [*settings.MIDDLEWARE, "tests.access.backends.UserOfHeader"]
    with CLOSED, override_settings(MIDDLEWARE=middleware):
        client = AsgiClient(get_asgi_application())
        assert (await send(client, "read", headers={"x-user": "somebody"})).status == 200
        assert (await send(client, "read")).status == 403
    with CLOSED, override_settings(MIDDLEWARE=[]):
        client = AsgiClient(get_asgi_application())
        assert (await send(client, "read")).status == 403


async def test_a_database_that_does_not_answer_is_no_permission(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def fail(keys: set[str]) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(sessions, "load_sessions", fail)
    with CLOSED:
        reply = await send(visitor, "read")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_there_is_no_guard_where_everything_is_allowed() -> None:
    assert current_guard() is None
    with CLOSED:
        assert isinstance(current_guard(), Guard)
        assert current_guard() is current_guard()
    assert current_guard() is None
    assert config().permission_classes == "django_durable_streams.permissions.AllowAll"


def test_logging_out_without_a_session_key_forgets_everybody(make_user: Callable[..., User]) -> None:
    request = HttpRequest()
    request.session = log_in_at_django(make_user("reader")).session
    logout(request)  # no user, no guard: nothing fails


class LinkOrStaff(SignedURLs):
    """Looks at the user, and does not say so: `needs_user` is that of its base."""

    in_memory = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return bool(user.is_staff) or super().can_read(user, path, request)


@pytest.mark.parametrize("query", ["", "offset=-1&live=long-poll"])
@pytest.mark.parametrize("needs_user", [False, True])
async def test_whether_a_user_counts_is_the_same_at_all_entry_points(
    make_user: Callable[..., User],
    visit: Callable[..., Visitor],
    monkeypatch: pytest.MonkeyPatch,
    needs_user: bool,
    query: str,
) -> None:
    monkeypatch.setattr(LinkOrStaff, "needs_user", needs_user)
    user = await sync_to_async(make_user)("staff")
    user.is_staff = True
    await user.asave()
    visitor = await sync_to_async(visit)(user)
    with override_streams(PERMISSION_CLASSES=f"{__name__}.LinkOrStaff"):
        assert (await send(visitor, "read", query)).status == (200 if needs_user else 403)


class PreparesMost(SignedURLs):
    """Cannot prepare some users."""

    needs_user = True

    def prepare(self, user: Any) -> None:
        if user.username.startswith("broken"):
            raise ValueError("a bug with this user")

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return bool(user.is_authenticated)


@override_streams(PERMISSION_CLASSES=f"{__name__}.PreparesMost", AUTH_CACHE_SECONDS=0)
async def test_a_user_that_cannot_be_prepared_is_an_error_of_this_user_alone(
    direct: AsgiClient, make_user: Callable[..., User], caplog: pytest.LogCaptureFixture
) -> None:
    names = ["broken1", "good1", "broken2", "good2"]
    users = [await sync_to_async(make_user)(name) for name in names]
    visitors = [Visitor(direct, await sync_to_async(log_in_at_django)(user)) for user in users]
    replies = await asyncio.gather(*[send(visitor, "read") for visitor in visitors * 3])
    assert [reply.status for reply in replies] == [500, 200, 500, 200] * 3
    assert "a bug with this user" in caplog.text
