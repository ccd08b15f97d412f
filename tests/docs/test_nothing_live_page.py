"""The causes that docs/howto/nothing-live.md names delay readers, and show what the page says."""

import asyncio
import re
from collections.abc import Iterator

import pytest
import redis
from django.test import override_settings

from django_durable_streams.engine.wakeup.redis import RedisWakeup
from tests.cluster.test_wakeups import Listener, hears
from tests.docs.pages import ROOT, anchors, blocks, section, table
from tests.management.commands import Shell
from tests.servers import Server
from tests.services import Redis, shared

PAGE = ROOT / "docs" / "howto" / "nothing-live.md"
PACKAGE = ROOT / "django_durable_streams"
(CHANNELS,) = [block.text for block in blocks(PAGE, "sh") if "pubsub channels" in block.text]


@pytest.fixture(scope="module")
def others() -> Iterator[Redis]:
    """A second Redis, with users of its own."""
    with Redis() as server:
        yield server


def test_the_words_of_the_log_and_of_the_doctor_are_those_of_the_code() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    quoted = re.findall(r'"([A-Za-z][^"]{8,})"', " ".join(PAGE.read_text().split()))
    assert len(quoted) >= 5
    own = [words.partition(" 0.01 s")[0] for words in quoted]
    assert [words for words in own if words not in source] == []


def test_each_cause_of_the_table_has_a_section() -> None:
    causes = [cause for *_, cause in table(section(PAGE, "Ask both ends"))]
    linked = [re.search(r"\(#([\w-]+)\)", cause) for cause in causes]
    assert len(linked) == 5
    assert {match[1] for match in linked if match} <= anchors(PAGE)


def channels(server: Redis, pattern: str) -> list[str]:
    with redis.Redis.from_url(server.url) as client:
        return sorted(channel.decode() for channel in client.pubsub_channels(pattern))


async def subscribed(*urls: str, **options: str) -> list[str]:
    """Return the channels, by the command of the page, while processes with these URLs have readers."""
    match = re.search(r"pubsub channels '(.+)'", CHANNELS)
    assert match is not None
    wakeups = [RedisWakeup("default", url=url, **options) for url in urls]
    listeners = [Listener() for _ in urls]
    subscribers = [wakeup.subscriber(listener) for wakeup, listener in zip(wakeups, listeners, strict=True)]
    try:
        for listener in listeners:
            await asyncio.wait_for(listener.looks.get(), 30)
        return channels(shared(Redis), match[1])
    finally:
        for subscriber in subscribers:
            subscriber.close()
        for wakeup in wakeups:
            await asyncio.to_thread(wakeup.stop)


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
async def test_processes_that_wake_each_other_have_one_channel(others: Redis) -> None:
    url = shared(Redis).url
    other_number = url.replace("/0", "/1")
    assert len(await subscribed(url, url)) == 1
    assert len(await subscribed(url, other_number)) == 2
    assert len(await subscribed(others.url)) == 0
    assert not await hears(RedisWakeup("default", url=url), RedisWakeup("default", url=others.url))
    assert not await hears(RedisWakeup("default", url=url), RedisWakeup("default", url=other_number))


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
async def test_a_mismatch_of_keys_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    url = shared(Redis).url
    with override_settings(SECRET_KEY="another one"):
        publishes = RedisWakeup("default", url=url)
        await asyncio.to_thread(publishes._loader.get, 30)
    listens = RedisWakeup("default", url=url)
    assert not await hears(publishes, listens)
    said = " ".join(section(PAGE, "SECRET_KEY mismatch").split())
    begin, reason = re.findall(r'"([^"]+)"', said)
    assert any(begin in line and reason in line for line in caplog.messages)


@pytest.mark.cluster
def test_the_doctor_of_a_writer_with_another_redis_says_that_only_the_poll_helps(others: Redis) -> None:
    with Server(long_poll_timeout=20, env={"REDIS_URL": shared(Redis).url}) as server:
        env = {**server.env, "REDIS_URL": others.url}
        done = Shell(env).run("doctor", "--url", f"{server.base_url}/v1/stream/")
    assert "A message of another process arrived" in done.stdout.decode()
    assert "Events arrive only by polling" in done.stdout.decode()
