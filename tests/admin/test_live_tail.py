"""The live tail: what its requests answer, at once under WSGI, and as soon as there is news under ASGI."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import AsyncClient, Client, override_settings
from django.utils import timezone

from django_durable_streams.admin import detail_views
from django_durable_streams.models import Stream
from tests.admin.pages import staff, url


def tail(client: Client, stream: Stream, position: int) -> Any:
    return client.get(url("tail", stream), {"from": str(position)})


@pytest.fixture
def log(db: None) -> Stream:
    return Stream.objects.create(path="log", content_type="text/plain", data="one <1>")


def test_there_is_nothing_new(admin_client: Client, log: Stream) -> None:
    begin = time.monotonic()
    assert tail(admin_client, log, log.tail_position).status_code == 204
    assert time.monotonic() - begin < 2  # under WSGI nobody waits


def test_what_is_new_comes_as_the_page_shows_it(admin_client: Client, log: Stream) -> None:
    log.append("two <2>")
    news = tail(admin_client, log, 7).json()
    assert "two &lt;2&gt;" in news["html"]
    assert "one" not in news["html"]
    assert (news["count"], news["position"], news["more"], news["closed"]) == (1, log.tail_position, False, False)
    assert (news["size"], news["offset"]) == ("14\xa0bytes", log.next_offset)
    assert "no-store" in tail(admin_client, log, 7)["Cache-Control"]


def test_the_end_of_a_stream_is_said(admin_client: Client, log: Stream) -> None:
    log.close()
    news = tail(admin_client, log, log.tail_position).json()
    assert (news["count"], news["closed"]) == (0, True)
    assert "Closed" in news["state"]


def test_a_stream_that_has_gone_is_not_found(admin_client: Client, log: Stream) -> None:
    log.delete()
    assert tail(admin_client, log, 0).status_code == 404


@pytest.mark.parametrize("position", ["", "x", "-3"])
def test_a_position_that_is_none_is_not_found(admin_client: Client, log: Stream, position: str) -> None:
    assert admin_client.get(url("tail", log), {"from": position}).status_code == 404


def test_only_get_is_answered(admin_client: Client, log: Stream) -> None:
    assert admin_client.post(url("tail", log), {"from": "0"}).status_code == 405


def test_who_is_far_behind_is_brought_to_the_end(admin_client: Client, log: Stream) -> None:
    for number in range(20):
        log.append(f"{number:03}" + "x" * 30_000)
    assert log.tail_position > detail_views.PAGE_BYTES
    news = tail(admin_client, log, 7).json()
    assert news["skipped"]
    assert (news["position"], news["more"]) == (log.tail_position, False)
    assert "019xxx" in news["html"]
    assert len(news["html"]) < 100_000


def test_many_small_messages_come_one_page_after_the_other(admin_client: Client, log: Stream) -> None:
    log.append_many((f"{number}" for number in range(70)), batch_bytes=1)
    first = tail(admin_client, log, 7).json()
    second = tail(admin_client, log, first["position"]).json()
    assert (first["count"], first["more"], first["skipped"]) == (detail_views.PAGE_MESSAGES, True, False)
    assert (second["count"], second["more"]) == (20, False)


def test_following_keeps_a_stream_alive_as_other_readers_do(
    admin_client: Client, log: Stream, django_capture_on_commit_callbacks: Any
) -> None:
    Stream.objects.filter(pk=log.pk).unguarded().update(ttl=60, deadline=timezone.now() + timedelta(seconds=5))
    with django_capture_on_commit_callbacks(execute=True):
        tail(admin_client, log, log.tail_position)
    deadline = Stream.objects.get(pk=log.pk).deadline
    assert deadline is not None
    assert deadline > timezone.now() + timedelta(seconds=30)


# Under ASGI.


@pytest.fixture
def log_of_many_threads(engines: None) -> Stream:
    return Stream.objects.create(path="log", content_type="text/plain", data="one")


async def logged_in(user: User) -> AsyncClient:
    client = AsyncClient()
    await sync_to_async(client.force_login)(user)
    return client


async def ask(client: AsyncClient, stream: Stream, position: int) -> Any:
    return await client.get(url("tail", stream), {"from": str(position)})


async def follow(client: AsyncClient, stream: Stream, position: int) -> Any:
    """Ask as the page does: again, after a wait has ended."""
    while (answer := await ask(client, stream, position)).status_code == 204:
        pass
    return answer


async def test_news_comes_as_soon_as_it_is_committed(log_of_many_threads: Stream, admin_user: User) -> None:
    stream = log_of_many_threads
    client = await logged_in(admin_user)
    waiting = asyncio.create_task(follow(client, stream, stream.tail_position))
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    await stream.aappend("two")
    begin = time.monotonic()
    news = (await waiting).json()
    assert time.monotonic() - begin < 1
    assert "two" in news["html"]
    assert news["position"] == stream.tail_position


async def test_a_wait_ends_with_the_stream(log_of_many_threads: Stream, admin_user: User) -> None:
    stream = log_of_many_threads
    client = await logged_in(admin_user)
    waiting = asyncio.create_task(follow(client, stream, stream.tail_position))
    await asyncio.wait([waiting], timeout=0.3)
    await stream.aclose()
    assert (await waiting).json()["closed"] is True
    # One that is closed is not waited for.
    assert (await ask(client, stream, stream.tail_position)).json()["closed"] is True


async def test_a_wait_ends_when_the_stream_is_deleted(log_of_many_threads: Stream, admin_user: User) -> None:
    stream = log_of_many_threads
    client = await logged_in(admin_user)
    waiting = asyncio.create_task(follow(client, stream, stream.tail_position))
    await asyncio.wait([waiting], timeout=0.3)
    await stream.adelete()
    assert (await waiting).status_code == 404


async def test_a_wait_ends_without_news_after_a_while(log_of_many_threads: Stream, admin_user: User) -> None:
    client = await logged_in(admin_user)
    with override_settings(DURABLE_STREAMS={"LONG_POLL_TIMEOUT": 0.2}):
        assert (await ask(client, log_of_many_threads, 3)).status_code == 204


async def test_who_may_not_view_does_not_wait(log_of_many_threads: Stream) -> None:
    client = await logged_in(await sync_to_async(staff)())
    assert (await ask(client, log_of_many_threads, 3)).status_code == 403
    assert (await ask(AsyncClient(), log_of_many_threads, 3)).status_code == 302


async def test_a_permission_that_was_taken_away_ends_the_tail_with_the_next_request(
    log_of_many_threads: Stream,
) -> None:
    viewer = await sync_to_async(staff)("view")
    client = await logged_in(viewer)
    assert (await ask(client, log_of_many_threads, 0)).status_code == 200
    await viewer.user_permissions.aclear()
    assert (await ask(client, log_of_many_threads, 0)).status_code == 403


async def _lose_permission(user: User) -> None:
    await user.user_permissions.aclear()


async def _leave(user: User) -> None:
    await User.objects.filter(pk=user.pk).aupdate(is_active=False)


async def _log_out(user: User) -> None:
    await Session.objects.all().adelete()


@pytest.mark.parametrize(("revoke", "status"), [(_lose_permission, 403), (_leave, 302), (_log_out, 302)])
async def test_what_is_revoked_during_a_wait_ends_the_tail_before_it_has_news(
    log_of_many_threads: Stream, revoke: Callable[[User], Awaitable[None]], status: int
) -> None:
    stream = log_of_many_threads
    viewer = await sync_to_async(staff)("view")
    client = await logged_in(viewer)
    waiting = asyncio.create_task(ask(client, stream, stream.tail_position))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await revoke(viewer)
    await stream.aappend("secret")
    answer = await waiting
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await ask(client, stream, 3)).status_code == status


def test_the_page_knows_whether_the_server_can_wait(admin_client: Client, log: Stream) -> None:
    assert f'data-poll="{detail_views.POLL_SECONDS}"' in admin_client.get(url("change", log)).content.decode()


async def test_the_page_asks_again_at_once_where_the_server_waits(
    log_of_many_threads: Stream, admin_user: User
) -> None:
    client = await logged_in(admin_user)
    page = await client.get(url("change", log_of_many_threads))
    assert 'data-poll="0"' in page.content.decode()
