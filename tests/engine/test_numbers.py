"""What an engine counts is what has happened."""

import asyncio

from asgiref.sync import sync_to_async
from django.db import transaction

from django_durable_streams.engine import engine_for
from django_durable_streams.engine.hub import Hub
from django_durable_streams.engine.numbers import HubNumbers, numbers_for
from django_durable_streams.engine.wakeup.base import WakeUpMessage
from django_durable_streams.models import Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Commit, Create, Delete
from tests.asgi_client import AsgiClient
from tests.metrics.numbers import Added, engine_stats
from tests.overriding import override_streams
from tests.server.waiting import elsewhere, until, watched


async def test_appends_and_their_bytes_are_counted(engines: None) -> None:
    engine = engine_for()
    appends, size = Added(lambda: engine.stats().appends), Added(lambda: engine.stats().append_bytes)
    await engine.write(Create("a", "text/plain", data=b"first"))
    await asyncio.gather(*(engine.write(Append("a", "text/plain", b"xy")) for _ in range(20)))
    await engine.write(Create("a/fork", "text/plain"))
    await asyncio.gather(engine.write(Append("gone", "text/plain", b"1")), return_exceptions=True)
    assert appends() == {"committer": 21}
    assert size() == {"committer": 45}


async def test_batches_are_counted_with_their_sizes(engines: None) -> None:
    engine = engine_for()
    before = engine.stats()
    await engine.write(Create("a", "text/plain"))
    await asyncio.gather(*(engine.write(Append("a", "text/plain", b"x")) for _ in range(30)))
    await asyncio.gather(*(engine.read("a", Sentinel.START) for _ in range(7)))
    after = engine.stats()
    assert after.commit_sizes.total - before.commit_sizes.total == 31
    assert after.commit_seconds.count - before.commit_seconds.count == (
        after.commit_sizes.count - before.commit_sizes.count
    )
    assert after.commit_seconds.total > before.commit_seconds.total
    assert after.read_sizes.total - before.read_sizes.total == 7
    assert (after.waiting_operations, after.waiting_bytes, after.waiting_reads) == (0, 0, 0)


def test_transactions_of_python_callers_count_once_they_are_committed(engines: None) -> None:
    appends, size = Added(lambda: engine_stats().appends), Added(lambda: engine_stats().append_bytes)
    stream = Stream.objects.create(path="a", content_type="text/plain")
    with transaction.atomic():
        stream.append("one")
        stream.append("two")
        assert appends() == {}
    assert (appends(), size()) == ({"transaction": 2}, {"transaction": 6})
    try:
        with transaction.atomic():
            stream.append("three")
            raise KeyError
    except KeyError:
        pass
    assert appends() == {"transaction": 2}


async def test_live_readers_are_counted_by_kind_while_they_wait(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    await client.create("a", b"abc")

    async def tail() -> None:
        stream = await sync_to_async(Stream.objects.get)(path="a")
        async for _ in stream.atail("now"):
            return

    following = asyncio.ensure_future(tail())
    async with client.follow("a", "now", "long-poll"), client.follow("a", "now", "sse"):
        await until(lambda: watched() >= 2 and sum(engine_stats().live_readers.values()) == 3)
        assert engine_stats().live_readers == {"long_poll": 1, "sse": 1, "tail": 1}
        assert engine_stats().watched_streams >= 1
        await client.append("a", b"d")
        await following
    await until(lambda: engine_stats().live_readers == {})
    assert engine_stats().wakeup_lags["own"].count > 0


async def test_hits_and_misses_of_the_cache_are_counted(engines: None) -> None:
    engine = engine_for()
    await engine.write(Create("a", "text/plain", data=b"abc"))
    for _ in range(3):
        await engine.read("a", Sentinel.START)
    stats = engine.stats()
    assert (stats.cache_misses, stats.cache_hits, stats.cache_segments) == (1, 2, 1)
    assert stats.cache_bytes > 3


@override_streams(POLL_INTERVAL=0.01)
async def test_polls_that_find_a_commit_are_counted(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    await client.create("a", b"abc")
    before = engine_stats()
    async with client.follow("a", "now", "long-poll") as reader:
        await until(lambda: watched() == 1)
        await elsewhere(Append("a", "text/plain", b"def"))
        assert (await reader.reply()).body == b"def"
    assert engine_stats().polls > before.polls
    assert engine_stats().polls_with_news == before.polls_with_news + 1


async def test_the_lag_of_messages_is_counted_if_they_say_when_they_were_sent(engines: None) -> None:
    engine, numbers = engine_for(), HubNumbers()
    await engine.write(Create("a", "text/plain"))
    snapshot = await engine.read("a")
    hub = Hub(engine, numbers)
    message = WakeUpMessage(snapshot.info.generation, 0, 0, False, False, None, [])
    hub.receive(snapshot.info.id, message._replace(sent_at=1))  # nobody watches the stream
    assert numbers.lags["message"].value().count == 0

    class Listener:
        def notify(self) -> None: ...

        def tick(self, now: float) -> None: ...

        def stop(self) -> None: ...

    listener = Listener()
    watch = await hub.join(snapshot.info, listener)
    hub.receive(snapshot.info.id, message)
    hub.receive(snapshot.info.id, message._replace(sent_at=10**15 * 9))  # a clock that is ahead
    hub.leave(watch, listener)
    value = numbers.lags["message"].value()
    assert (value.count, value.total) == (1, 0.0)


async def test_the_work_of_housekeeping_is_counted(engines: None) -> None:
    engine = engine_for()
    before = engine.stats().housekeeping["purge"].done
    await engine.write(Create("a", "text/plain", data=b"abc"))
    await engine.write(Delete("a"))
    await until(lambda: engine.stats().housekeeping["purge"].done == before + 1)
    purge = engine.stats().housekeeping["purge"]
    assert purge.steps > 0
    assert purge.seconds > 0
    assert set(engine.stats().housekeeping) == {
        "expiry", "removal", "flush", "compaction", "retention", "trimming", "keycompaction", "purge",
    }  # fmt: skip


def test_a_commit_without_its_data_counts_as_one_append() -> None:
    numbers = numbers_for("of a test")
    appends = Added(lambda: numbers.stats().appends)
    numbers.count([Commit(1, "a", "text/plain", 10, 30, False), Commit(2, "b", "text/plain", 4, 4, True)], "committer")
    assert appends() == {"committer": 1}
