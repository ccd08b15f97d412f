"""News travel through Redis however a project has configured it, and only to those whom they concern."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from django_durable_streams.engine.wakeup import signing
from django_durable_streams.engine.wakeup.base import WakeUpMessage
from django_durable_streams.engine.wakeup.redis import MAX_PAYLOAD, RedisWakeup, encode
from django_durable_streams.store.database_identity import LocatedIdentity
from django_durable_streams.store.operations import Commit
from tests.certificates import certificate_file
from tests.cluster.sentinel import Sentinel
from tests.servers import HOST, free_port
from tests.services import Redis, shared

PASSWORD = "geheim"
STREAM = 7
SECONDS = 30.0


class Listener:
    """Takes in what a subscriber hears."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[WakeUpMessage] = asyncio.Queue()
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    def receive(self, stream_id: int, news: WakeUpMessage) -> None:
        assert stream_id == STREAM
        self.news.put_nowait(news)

    def poll_all(self) -> None:
        self.looks.put_nowait(None)


@pytest.fixture(autouse=True)
def identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each alias be a database of its own. No test here asks one for its identity."""
    monkeypatch.setattr(signing, "DedicatedConnection", MagicMock())
    monkeypatch.setattr(signing, "located_identity", lambda using: LocatedIdentity(f"the identity of {using}", ""))


async def test_a_subscriber_moves_with_the_database(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover all processes name the channels by another server. Those of the old one count no more."""
    hearing, publishing = (RedisWakeup("default", url=redis.url) for _ in range(2))
    earlier = channel_of(publishing)
    listener = Listener()
    subscriber = hearing.subscriber(listener)
    try:
        await subscriber.subscribe(STREAM)
        await asyncio.wait_for(listener.looks.get(), SECONDS)
        await asyncio.to_thread(publishing.publish_now, [commit(b"first")])
        assert (await asyncio.wait_for(listener.news.get(), SECONDS)).data == b"first"
        assert subscriber.is_receiving
        latest = object()
        monkeypatch.setattr(signing, "located_identity", lambda using: LocatedIdentity("another server", ""))
        monkeypatch.setattr(signing, "latest_connection", lambda using: latest)
        assert not subscriber.is_receiving
        await asyncio.wait_for(listener.looks.get(), SECONDS)
        assert subscriber.is_receiving
        await asyncio.to_thread(publishing.publish_now, [commit(b"second")])
        assert (await asyncio.wait_for(listener.news.get(), SECONDS)).data == b"second"
        assert channel_of(publishing) != earlier
        later = channel_of(publishing)
        assert hearing._client.pubsub_numsub(earlier, later) == [(earlier, 0), (later, 1)]
    finally:
        subscriber.close()
        for backend in (hearing, publishing):
            await asyncio.to_thread(backend.stop)


def channel_of(wakeup: RedisWakeup) -> bytes:
    signer = wakeup._loader.get(SECONDS)
    assert signer is not None
    return signer.channel(STREAM)


def commit(data: bytes = b"x", stream: int = STREAM) -> Commit:
    return Commit(stream, "a", "text/plain", 0, len(data), False, appends=[data], ends=[len(data)])


def cache(settings: Any, location: str, **options: Any) -> dict[str, str]:
    """Configure a cache of django-redis, and return the options of a wake-up backend that uses it."""
    prefix = options.pop("KEY_PREFIX", "")
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": location,
            "KEY_PREFIX": prefix,
            "OPTIONS": options,
        }
    }
    return {"cache": "default"}


async def hears(publishes: RedisWakeup, listens: RedisWakeup) -> bool:
    """Whether what one backend publishes arrives at another one."""
    listener = Listener()
    subscriber = listens.subscriber(listener)
    try:
        await subscriber.subscribe(STREAM)
        publishes.publish([commit(stream=STREAM + 1), commit()])
        try:
            async with asyncio.timeout(0.5):
                news = await listener.news.get()
        except TimeoutError:
            return False
        assert news._replace(sent_at=0) == WakeUpMessage(0, 0, 1, False, False, b"x", [1])
        assert publishes.find_problem() is None
        return True
    finally:
        subscriber.close()
        for backend in (publishes, listens):
            await asyncio.to_thread(backend.stop)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Redis]:
    with Redis(password=PASSWORD) as redis:
        yield redis


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that it has signed itself, in one file."""
    return certificate_file(tmp_path_factory.mktemp("tls"), HOST)


async def test_with_a_password(guarded: Redis, settings: Any) -> None:
    options = cache(settings, f"redis://{HOST}:{guarded.port}/0", PASSWORD=PASSWORD)
    assert await hears(RedisWakeup("default", **options), RedisWakeup("default", **options))
    assert await hears(RedisWakeup("default", url=guarded.url), RedisWakeup("default", url=guarded.url))


async def test_without_the_password_nothing_is_heard(guarded: Redis, caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://{HOST}:{guarded.port}/0"
    wakeup = RedisWakeup("default", url=url)
    assert wakeup.find_problem() is not None
    assert not await hears(RedisWakeup("default", url=guarded.url), wakeup)
    assert "Redis refuses the login (" in caplog.text
    assert "Correct the user and the password" in caplog.text


def send_one(wakeup: RedisWakeup) -> None:
    wakeup.publish_now([commit(b"\x00\xff")])


async def receive_one(wakeup: RedisWakeup) -> None:
    subscriber = wakeup.subscriber(Listener())
    await subscriber.subscribe(STREAM)
    assert not subscriber.is_receiving
    subscriber.close()


@pytest.mark.parametrize("is_publisher", [True, False])
async def test_a_user_without_the_channels_is_refused_with_the_words_of_redis(
    caplog: pytest.LogCaptureFixture, is_publisher: bool
) -> None:
    server = shared(Redis)
    rules = ("on", f">{PASSWORD}", "+@all", "~*", "resetchannels")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "without_channels", *rules)
    wakeup = RedisWakeup("default", url=f"redis://without_channels:{PASSWORD}@{HOST}:{server.port}/0")
    try:
        problem = await asyncio.to_thread(wakeup.find_problem)
        if is_publisher:
            await asyncio.to_thread(send_one, wakeup)
        else:
            await receive_one(wakeup)
    finally:
        await asyncio.to_thread(wakeup.stop)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("Redis refuses wake-up messages (NOPERM ")
    assert "channels durable-streams:*. Until this ends" in line
    assert line.isascii()
    assert line.isprintable()
    assert "\\x" not in line
    assert problem is not None
    assert problem.text.startswith("Redis refuses wake-up messages (NOPERM ")
    assert problem.remedy.endswith("the channels durable-streams:*.")


async def test_the_channels_of_the_prefix_are_enough() -> None:
    server = shared(Redis)
    commands = ("+ping", "+publish", "+subscribe", "+unsubscribe")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(
            "ACL", "SETUSER", "with_channels", "on", f">{PASSWORD}", "-@all", *commands, "resetchannels", "&own:*"
        )
    url = f"redis://with_channels:{PASSWORD}@{HOST}:{server.port}/0"
    wakeup = RedisWakeup("default", url=url, prefix="own")
    assert await asyncio.to_thread(wakeup.find_problem) is None
    assert await hears(wakeup, RedisWakeup("default", url=url, prefix="own"))


async def test_over_tls(certificate: Path, settings: Any) -> None:
    with Redis(password=PASSWORD, certificate=certificate) as redis:
        plain = f"rediss://{HOST}:{redis.port}/0"
        trust = {"CONNECTION_POOL_KWARGS": {"ssl_ca_certs": str(certificate)}, "PASSWORD": PASSWORD}
        options = cache(settings, plain, **trust)
        assert await hears(RedisWakeup("default", **options), RedisWakeup("default", url=redis.url))
        # A server that nobody vouches for is not talked to.
        options = cache(settings, f"{plain}?other=pool", PASSWORD=PASSWORD)
        assert RedisWakeup("default", **options).find_problem() is not None


async def test_through_sentinel_over_a_change_of_masters(settings: Any) -> None:
    with (
        Redis(password=PASSWORD) as master,
        Redis(password=PASSWORD, follows=master),
        Sentinel(master, PASSWORD) as sentinel,
    ):
        settings.DJANGO_REDIS_CONNECTION_FACTORY = "django_redis.pool.SentinelConnectionFactory"
        options = cache(
            settings,
            sentinel.url,
            CLIENT_CLASS="django_redis.client.SentinelClient",
            SENTINELS=[(HOST, sentinel.port)],
            PASSWORD=PASSWORD,
        )
        wakeup = RedisWakeup("default", **options)
        listener = Listener()
        subscriber = wakeup.subscriber(listener)
        try:
            await subscriber.subscribe(STREAM)
            wakeup.publish_now([commit(b"before")])
            assert (await heard(listener)).data == b"before"
            await until(lambda: sentinel.replicas() == 1)
            await asyncio.to_thread(master.kill)
            async with asyncio.timeout(SECONDS):
                while (await next_heard(wakeup, listener, b"after")).data != b"after":
                    pass
        finally:
            subscriber.close()
            await asyncio.to_thread(wakeup.stop)


class Node(Redis):
    """A node of a Redis Cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = free_port()

    def _command(self) -> Sequence[str]:
        return [*super()._command(), "--cluster-enabled", "yes", "--cluster-port", str(self.bus)]


async def test_through_a_cluster_whose_nodes_pass_messages_on() -> None:
    with Node() as first, Node() as second:
        with redis.Redis.from_url(first.url) as client:
            client.execute_command("CLUSTER", "MEET", HOST, second.port, second.bus)
        sender, receiver = RedisWakeup("default", url=first.url), RedisWakeup("default", url=second.url)
        listener = Listener()
        subscriber = receiver.subscriber(listener)
        try:
            await subscriber.subscribe(STREAM)
            async with asyncio.timeout(SECONDS):
                assert (await next_heard(sender, listener, b"through")).data == b"through"
        finally:
            subscriber.close()
            for wakeup in (sender, receiver):
                await asyncio.to_thread(wakeup.stop)


async def next_heard(wakeup: RedisWakeup, listener: Listener, data: bytes) -> WakeUpMessage:
    """Publish until something is heard."""
    while True:
        await asyncio.to_thread(wakeup.publish_now, [commit(data)])
        try:
            async with asyncio.timeout(0.2):
                return await listener.news.get()
        except TimeoutError:
            pass


async def heard(listener: Listener) -> WakeUpMessage:
    async with asyncio.timeout(SECONDS):
        return await listener.news.get()


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_other_projects_on_the_same_redis_hear_nothing(settings: Any) -> None:
    redis = shared(Redis)
    other_number = redis.url.replace("/0", "/1")
    assert await hears(RedisWakeup("default", url=redis.url), RedisWakeup("default", url=redis.url))
    assert not await hears(RedisWakeup("default", url=redis.url), RedisWakeup("default", url=other_number))
    assert not await hears(RedisWakeup("default", url=redis.url), RedisWakeup("default", url=redis.url, prefix="b"))
    one = RedisWakeup("default", **cache(settings, redis.url, KEY_PREFIX="one"))
    other = RedisWakeup("default", **cache(settings, redis.url, KEY_PREFIX="other"))
    assert not await hears(one, other)


async def test_projects_with_other_databases_hear_nothing() -> None:
    url = shared(Redis).url
    assert not await hears(RedisWakeup("default", url=url), RedisWakeup("other", url=url))


async def test_what_others_publish_on_a_channel_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    wakeup = RedisWakeup("default", url=shared(Redis).url)
    listener = Listener()
    subscriber = wakeup.subscriber(listener)
    await subscriber.subscribe(STREAM)
    channel = channel_of(wakeup)
    for message in (b"", b"garbage", encode(commit(b"unsigned")), b"\x00" * 16 + encode(commit(b"forged"))):
        wakeup._client.publish(channel, message)
    wakeup.publish_now([commit()])
    assert (await heard(listener)).data == b"x"
    assert listener.news.empty()
    assert caplog.text.count("A wake-up message on ") == 1
    assert "not signed with the SECRET_KEY of this process. Give all processes of the project the same" in caplog.text
    subscriber.close()
    await asyncio.to_thread(wakeup.stop)


async def test_much_data_stays_at_home() -> None:
    wakeup = RedisWakeup("default", url=shared(Redis).url)
    listener = Listener()
    subscriber = wakeup.subscriber(listener)
    await subscriber.subscribe(STREAM)
    wakeup.publish([commit(b"x" * MAX_PAYLOAD), commit(b"x" * (MAX_PAYLOAD + 1))])
    assert len((await heard(listener)).data or b"") == MAX_PAYLOAD
    assert (await heard(listener))._replace(sent_at=0) == WakeUpMessage(0, 0, MAX_PAYLOAD + 1, False, False, None, [])
    subscriber.close()
    await asyncio.to_thread(wakeup.stop)


async def test_after_a_break_everybody_looks_once_and_listens_again() -> None:
    redis = shared(Redis)
    wakeup = RedisWakeup("default", url=redis.url)
    listener = Listener()
    subscriber = wakeup.subscriber(listener)
    await subscriber.subscribe(STREAM)
    async with asyncio.timeout(SECONDS):
        await listener.looks.get()
        wakeup._client.execute_command("CLIENT KILL TYPE pubsub")  # type: ignore[no-untyped-call]
        await listener.looks.get()
    # What is looked at when the look comes is subscribed: from here on nothing is missed.
    wakeup.publish_now([commit()])
    assert (await heard(listener)).data == b"x"
    assert listener.looks.empty()
    subscriber.close()
    await asyncio.to_thread(wakeup.stop)


async def test_a_stream_left_and_joined_at_once_is_listened_to() -> None:
    wakeup = RedisWakeup("default", url=shared(Redis).url)
    listener = Listener()
    subscriber = wakeup.subscriber(listener)
    await subscriber.subscribe(STREAM)
    for _ in range(50):
        subscriber.unsubscribe(STREAM)
        await subscriber.subscribe(STREAM)
        wakeup.publish_now([commit()])
        await heard(listener)
    subscriber.unsubscribe(STREAM)
    await until(lambda: wakeup._client.pubsub_numsub(channel_of(wakeup))[0][1] == 0)
    subscriber.close()
    await asyncio.to_thread(wakeup.stop)


async def test_silence_is_noticed_said_once_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Redis() as redis:
        wakeup = RedisWakeup("default", url=redis.url)
        listener = Listener()
        subscriber = wakeup.subscriber(listener)
        await subscriber.subscribe(STREAM)
        await listener.looks.get()
        redis.freeze()
        # Nobody publishes, and nobody comes: only who listens can notice.
        await until(lambda: "Redis does not answer" in caplog.text)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(10):
            await asyncio.to_thread(wakeup.publish_now, [commit()])
        assert loop.time() - began < 2, "those who publish wait each time"
        assert await asyncio.to_thread(wakeup.find_problem) is not None
        redis.thaw()
        async with asyncio.timeout(SECONDS):
            await listener.looks.get()
        assert (await next_heard(wakeup, listener, b"x")).data == b"x"
        subscriber.close()
        await asyncio.to_thread(wakeup.stop)
    said = [record.getMessage().partition(" (")[0] for record in caplog.records if "wakeup" in record.name]
    assert said == [
        "Redis does not answer",
        "Redis answers again. Readers learn of commits of other processes at once.",
    ]


def test_a_cache_of_another_kind_is_refused(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with pytest.raises(ImproperlyConfigured, match="django-redis"):
        RedisWakeup("default", cache="default")
    with pytest.raises(ImproperlyConfigured, match="either"):
        RedisWakeup("default")
