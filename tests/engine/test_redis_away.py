"""While Redis is away, commits and readers go on. It is logged once, and callers do not wait again and again."""

import asyncio
import re
import socket
import time
import traceback
from collections.abc import Iterator
from threading import Thread
from unittest.mock import MagicMock, Mock

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_durable_streams.engine.wakeup import redis as module
from django_durable_streams.engine.wakeup import signing
from django_durable_streams.engine.wakeup.base import WakeUpMessage
from django_durable_streams.engine.wakeup.redis import MAX_PAYLOAD, RedisWakeup, encode
from django_durable_streams.store.database_identity import LocatedIdentity
from django_durable_streams.store.operations import Commit
from tests.servers import HOST

STREAM = 7


class Listener:
    """Hears nothing in these tests."""

    def receive(self, stream_id: int, news: WakeUpMessage) -> None:
        raise AssertionError("there is no Redis")

    def poll_all(self) -> None:
        raise AssertionError("there is no Redis")


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose identity needs no connection."""
    monkeypatch.setattr(signing, "DedicatedConnection", MagicMock())
    monkeypatch.setattr(signing, "located_identity", lambda using: LocatedIdentity("a database", ""))


@pytest.fixture
def wakeup(database: None) -> Iterator[RedisWakeup]:
    """A backend whose Redis refuses every connection."""
    with socket.socket() as nobody:  # bound, so that nobody else takes the port, and not listening
        nobody.bind((HOST, 0))
        wakeup = RedisWakeup("default", url=f"redis://{HOST}:{nobody.getsockname()[1]}/0")
        yield wakeup
        wakeup.stop()


def commit(size: int = 1) -> Commit:
    return Commit(STREAM, "a", "text/plain", 0, size, False, appends=[b"x" * size], ends=[size])


def test_an_error_about_the_url_has_no_part_of_the_password() -> None:
    password = "geheim/2"
    with pytest.raises(ImproperlyConfigured, match="not a URL of Redis") as caught:
        RedisWakeup("default", url=f"redis://:{password}@127.0.0.1:6379/0")
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_publishing_reports_the_failure_once_and_raises_nothing(
    wakeup: RedisWakeup, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)
    for _ in range(3):
        wakeup.publish_now([commit()])
    (record,) = caplog.records
    assert record.getMessage().startswith("Redis does not answer (")


def test_the_log_has_no_data_that_a_redis_without_publish_repeats(
    database: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis with `rename-command PUBLISH` names the arguments of the unknown command."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(65536):
                for _ in re.findall(rb"(?m)^\*[0-9]+\r$", data):
                    connection.sendall(b"-ERR unknown command 'PUBLISH', with args beginning with: 'a:7' 'geheim' \r\n")

    with socket.create_server((HOST, 0)) as server:
        answering = Thread(target=answer, daemon=True)
        answering.start()
        wakeup = RedisWakeup("default", url=f"redis://{HOST}:{server.getsockname()[1]}/0")
        wakeup.publish_now([commit()])
        wakeup.stop()
        answering.join(10)
    (record,) = caplog.records
    assert record.getMessage().startswith("Redis answers with an error (unknown command 'PUBLISH'). Until")


def test_after_a_failure_nothing_is_published_for_a_while(wakeup: RedisWakeup, monkeypatch: pytest.MonkeyPatch) -> None:
    wakeup.publish_now([commit()])
    with monkeypatch.context() as patch:
        patch.setattr(wakeup, "_client", None)  # whoever used it now would fail
        wakeup.publish_now([commit()])


def test_commits_are_published_in_their_order_and_all_of_them(
    wakeup: RedisWakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[Commit]] = []
    monkeypatch.setattr(wakeup, "publish_now", batches.append)
    commits = [commit(size) for size in range(1, 4)]
    for one in commits:
        wakeup.publish([one])
    wakeup.stop()  # after what is queued
    assert [one for batch in batches for one in batch] == commits


def test_commits_beyond_the_limit_are_not_published(wakeup: RedisWakeup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 0)
    monkeypatch.setattr(wakeup, "publish_now", Mock(side_effect=AssertionError("it was not queued")))
    wakeup.publish([commit()])
    wakeup.stop()


def test_a_check_says_that_redis_is_away(wakeup: RedisWakeup) -> None:
    problem = wakeup.find_problem()
    assert problem is not None
    assert problem.text.startswith("Redis does not answer (")


async def test_a_reader_is_subscribed_within_the_time_of_a_confirmation(
    wakeup: RedisWakeup, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = wakeup.subscriber(Listener())
    started = time.monotonic()
    await subscriber.subscribe(STREAM)
    await subscriber.subscribe(STREAM + 1)  # it is known by now that there is nobody to confirm it
    assert time.monotonic() - started < 2.0
    assert not subscriber.is_receiving
    subscriber.unsubscribe(STREAM)
    await asyncio.sleep(0)
    subscriber.close()
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["Redis does not answer"]


def test_a_protocol_that_is_no_number_is_refused_at_the_start() -> None:
    with pytest.raises(ImproperlyConfigured, match="protocol"):
        RedisWakeup("default", url=f"redis://{HOST}/0?protocol=new")


@pytest.mark.parametrize(("size", "along"), [(MAX_PAYLOAD, True), (MAX_PAYLOAD + 1, False)])
def test_a_message_carries_the_data_of_a_small_commit_only(size: int, along: bool) -> None:
    assert (len(encode(commit(size))) > MAX_PAYLOAD) == along
