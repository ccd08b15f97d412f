"""A portion of key compaction that is interrupted at each of its statements: every read leads to the same state."""

from collections.abc import Callable
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import pytest
from django.db import Error, connection, connections

from django_durable_streams.api import transactions
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.store.operations import Create, Fork
from django_durable_streams.store.sql import CommitUncertain, statements
from django_durable_streams.store.upkeep import compaction, key_compaction
from django_durable_streams.store.upkeep.key_compaction import Job, Portion
from django_durable_streams.store.upkeep.key_passes import Pass
from tests.overriding import override_streams
from tests.store.key_compaction_steps import START, USING, change, claimed, compact_keys, due, state
from tests.store.test_interrupted_merges import PLACES, before, holding, impatiently, kill
from tests.store.test_isolation import isolated
from tests.tokens import offset_in

__all__ = ["before"]

JSON = "application/json"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


@pytest.fixture(autouse=True)
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    with override_streams(KEY_COMPACTION={"s/**": {"delay": 0}}):
        yield


MESSAGES = [change(str(number % 3), number) for number in range(9)]


def make() -> Stream:
    stream = Stream.objects.create(path="s/a", content_type=JSON)
    for message in MESSAGES:
        stream.append(message)
    return stream


def first_portion() -> tuple[Job, Portion]:
    """Return a pass and the first chunks that it replaces."""
    (job,) = due(START)
    present = Pass(USING, claimed(job, START))
    while present.scan():
        pass
    portion = present.find()
    assert portion is not None
    assert portion.ids
    return present.job, portion


def check(stream: Stream, *more: Any) -> None:
    chunks = [*Chunk.objects.filter(stream=stream).order_by("end")]
    assert chunks[0].start == 0
    assert all(first.end == second.start for first, second in pairwise(chunks))
    assert chunks[-1].end == Stream.objects.get(pk=stream.pk).tail_position
    assert state(stream.read()) == state([*MESSAGES, *more])


@pytest.mark.parametrize("place", ["wait_for_stream", *PLACES])
def test_an_append_and_a_fork(place: str, before: Any) -> None:
    stream = make()
    cut = offset_in("s/a", Chunk.objects.order_by("end")[3].end)
    job, portion = first_portion()
    done: dict[str, bool] = {}

    def act() -> None:
        done["append"] = impatiently(lambda: Stream.objects.get(path="s/a").append(change("0", "new")))
        done["fork"] = impatiently(lambda: transactions.apply(Create("s/fork", JSON, fork=Fork("s/a", cut)), USING))

    before(place, act)
    with isolated("READ COMMITTED"):
        replaced = key_compaction.replace(USING, job, portion)
    assert not (replaced and done["fork"])
    check(stream, *[change("0", "new")] * done["append"])
    if done["fork"]:
        assert list(Stream.objects.get(path="s/fork").read()) == MESSAGES[:4]


@pytest.mark.parametrize("other", [lambda: compact_keys(START), lambda: compaction.compact(USING, [job_id()])])
@pytest.mark.parametrize("place", ["wait_for_stream", *PLACES])
def test_another_process_that_replaces_the_same_chunks(place: str, other: Callable[[], object], before: Any) -> None:
    stream = make()
    job, portion = first_portion()
    before(place, lambda: impatiently(other))
    with isolated("READ COMMITTED"):
        key_compaction.replace(USING, job, portion)
    check(stream)
    compact_keys(START + 400 * 1_000_000)
    check(stream)


def job_id() -> int:
    return int(Stream.objects.get(path="s/a").pk)


@pytest.mark.parametrize("place", ["wait_for_stream", *PLACES])
def test_a_connection_that_the_server_ends(place: str, before: Any) -> None:
    stream = make()
    job, portion = first_portion()
    before(place, kill)
    with pytest.raises((Error, CommitUncertain)):
        key_compaction.replace(USING, job, portion)
    connection.close()
    check(stream)
    assert list(stream.read()) == MESSAGES
    assert key_compaction.replace(USING, job, portion)
    check(stream)


def test_the_row_of_a_busy_stream_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch of its appends locks it for some milliseconds, and the next one follows at once."""
    stream = make()
    job, portion = first_portion()
    lock = f"SELECT id FROM {Stream._meta.db_table} WHERE id = {stream.pk} FOR UPDATE"
    is_held, is_waited_for = Event(), Event()

    def append() -> None:
        with holding([lock]) as cursor:
            is_held.set()
            assert is_waited_for.wait(10)
            cursor.execute("ROLLBACK")
        connections.close_all()

    kind = type(statements(USING))
    wait_for_stream = kind.wait_for_stream

    def waiting(self: Any, *args: Any) -> None:
        is_waited_for.set()
        wait_for_stream(self, *args)

    monkeypatch.setattr(kind, "wait_for_stream", waiting)
    thread = Thread(target=append)
    thread.start()
    assert is_held.wait(10)
    try:
        assert key_compaction.replace(USING, job, portion)
    finally:
        is_waited_for.set()
        thread.join()
    check(stream)


def test_a_row_that_another_transaction_holds_for_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_compaction, "LOCK_MS", 50)
    stream = make()
    job, portion = first_portion()
    with holding([f"SELECT id FROM {Stream._meta.db_table} WHERE id = {stream.pk} FOR UPDATE"]):
        assert not key_compaction.replace(USING, job, portion)
    assert list(stream.read()) == MESSAGES
    assert key_compaction.replace(USING, job, portion)
    check(stream)
