"""The registry: each committed change of a stream is told once, in an order that is right for each path."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.models import RegistryEntry, Stream
from django_durable_streams.protocol.errors import (
    ContentTypeMismatch,
    DurableStreamsError,
    RegistryReadOnly,
    StreamClosed,
    StreamExists,
)
from django_durable_streams.store.archive import transfer
from django_durable_streams.store.operations import (
    Append,
    Create,
    Delete,
    Fork,
    Moved,
    MoveEntries,
    Operation,
    TakeOver,
)
from django_durable_streams.store.sql import statements_class
from django_durable_streams.store.upkeep import removal, retention, sweeping
from django_durable_streams.store.write import group_commit
from tests.overriding import override_streams
from tests.store.contents import read
from tests.store.key_compaction_steps import SECOND, compact_keys
from tests.store.registry import REGISTRY, brief, check_replay

JSON, TEXT = "application/json", "text/plain"
USING = "default"


@pytest.fixture(autouse=True)
def _registry(db: None) -> Iterator[None]:
    with override_streams(REGISTRY_PATH=REGISTRY):
        yield


def apply(*operations: Operation) -> list[Any]:
    outcomes, _ = group_commit.apply(operations, USING)
    return outcomes


def move(limit: int = 1000) -> Any:
    return apply(MoveEntries(REGISTRY, limit))[0]


def messages() -> list[dict[str, Any]]:
    """Move all entries, and return the messages of the registry."""
    assert isinstance(move(), Moved)
    return list(Stream.objects.get(path=REGISTRY).read())


def told() -> list[str]:
    return [brief(message) for message in messages()]


def test_each_kind_of_change_is_told() -> None:
    before = clock.now()
    stream = Stream.objects.create(path='a/\u00e9 "b"', content_type=TEXT, data="x")
    stream.append("more")
    stream.close()
    stream.delete()
    insert, update, delete = messages()
    value: dict[str, Any] = {
        "path": 'a/\u00e9 "b"',
        "contentType": TEXT,
        "createdAt": stream.generation // 1000,
        "closed": False,
    }
    assert abs(value["createdAt"] / 1000 - before.timestamp()) < 60
    closed = {**value, "closed": True}
    timestamps = [message["headers"].pop("timestamp") for message in (insert, update, delete)]
    assert timestamps == sorted(timestamps)
    assert all(timestamp.endswith("Z") for timestamp in timestamps)
    common = {"type": "stream", "key": value["path"]}
    assert insert == {**common, "value": value, "headers": {"operation": "insert"}}
    assert update == {**common, "value": closed, "headers": {"operation": "update"}}
    assert delete == {**common, "old_value": {**closed, "expired": False}, "headers": {"operation": "delete"}}
    assert not RegistryEntry.objects.exists()


def test_what_changes_nothing_is_not_told() -> None:
    apply(Create("a", TEXT), Create("a", TEXT), Append("a", TEXT, b"", close=True))
    apply(Create("a", TEXT, closed=True), Append("a", TEXT, b"", close=True), Create("a", JSON))
    assert told() == ["insert a closed"]


def test_a_rolled_back_change_is_never_told() -> None:
    kept = Stream.objects.create(path="kept")

    def fail() -> None:
        with transaction.atomic():
            Stream.objects.create(path="never")
            kept.close()
            kept.delete()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert told() == ["insert kept"]


def test_a_callers_transaction_is_told_with_its_commit() -> None:
    def fail() -> None:
        with transaction.atomic():
            Stream.objects.get(path="a").delete()
            raise ZeroDivisionError

    with transaction.atomic():
        Stream.objects.create(path="a").close()
        Stream.objects.create(path="b", closed=True)
        with pytest.raises(ZeroDivisionError):
            fail()
    assert told() == ["insert a", "update a closed", "insert b closed"]


def test_one_batch_tells_its_net_changes_in_their_order() -> None:
    apply(Create("a", TEXT), Create("b", TEXT))
    apply(
        Delete("a"),
        Create("a", JSON),
        Append("b", TEXT, b"x", close=True),
        Create("never", TEXT),
        Delete("never"),
    )
    assert told() == ["insert a", "insert b", "delete a", "insert a", "update b closed"]
    assert [message["value"]["contentType"] for message in messages() if brief(message) == "insert a"] == [TEXT, JSON]


def test_forks_and_soft_deleted_sources_are_told() -> None:
    source = Stream.objects.create(path="source", data=b"x")
    fork = source.fork("fork")
    source.delete()
    with pytest.raises(StreamExists):
        Stream.objects.create(path="source")
    fork.delete()
    assert removal.collect(USING) == 1  # the second end of the source is nothing new for readers
    Stream.objects.create(path="source")
    assert told() == ["insert source", "insert fork", "delete source", "delete fork", "insert source"]


def test_a_source_that_ends_in_the_batch_of_its_fork_is_told_in_the_order_of_its_own_changes() -> None:
    apply(Create("source", TEXT, data=b"x"), Create("fork", None, fork=Fork("source")), Delete("source"))
    lines = told()
    assert [line for line in lines if line.endswith("source")] == ["insert source", "delete source"]
    assert [line for line in lines if line.endswith("fork")] == ["insert fork"]


@pytest.mark.parametrize("way", ["expire", "sweep", "create"])
def test_expiry_is_told_whoever_notices_it(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = clock.now()
    source = Stream.objects.create(path="a", ttl=10, data=b"x")
    Stream.objects.create(path="b", ttl=10)
    source.fork("fork").set_lifetime(ttl=None)
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=20))
    if way == "expire":
        removal.expire(USING)
    elif way == "sweep":
        list(sweeping.sweep(USING))
    else:
        assert apply(Create("b", TEXT))[0].created
    ended = ["delete a expired", "delete b expired"] if way != "create" else ["delete b expired", "insert b"]
    assert told() == ["insert a", "insert b", "insert fork", *ended]


def test_many_deletes_and_purges_are_told_once() -> None:
    apply(*(Create(f"s/{number}", TEXT) for number in range(30)))
    Stream.objects.filter(path__startswith="s/").delete()
    while removal.purge(USING):
        pass
    lines = told()
    assert sorted(lines[:30]) == sorted(f"insert s/{number}" for number in range(30))
    assert sorted(lines[30:]) == sorted(f"delete s/{number}" for number in range(30))


def test_an_import_is_told(tmp_path: Path) -> None:
    Stream.objects.create(path="a", data=b"x", closed=True)
    source = Stream.objects.create(path="source", data=b"x")
    source.fork("fork")
    source.delete()
    list(transfer.export_streams(tmp_path / "archive", USING))
    Stream.objects.filter(path__in=["a", "fork"]).delete()
    removal.collect(USING)
    before = told()
    assert not any("__registry__" in line for line in before)
    list(transfer.import_streams(tmp_path / "archive", USING))
    assert told()[len(before) :] == ["insert a closed", "insert fork"]


def test_the_registry_does_not_tell_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    Stream.objects.create(path="a")
    assert told() == ["insert a"]
    registry = Stream.objects.get(path=REGISTRY)
    registry.set_lifetime(ttl=10)
    moment = clock.now()
    monkeypatch.setattr(clock, "now", lambda: moment + timedelta(seconds=100))
    assert [commit.path for commit in removal.expire(USING)] == [REGISTRY]
    assert not RegistryEntry.objects.exists()
    assert told() == []


def test_entries_are_moved_in_portions() -> None:
    apply(*(Create(f"s/{number}", TEXT) for number in range(5)))
    assert [move(2).count for _ in range(4)] == [2, 2, 1, 0]
    assert told() == [f"insert s/{number}" for number in range(5)]


def test_each_change_has_an_offset_of_its_own() -> None:
    apply(*(Create(f"s/{number}", TEXT) for number in range(5)))
    move()
    registry = Stream.objects.get(path=REGISTRY)
    _, ends = read(REGISTRY)
    registry.trim(registry.offset_at(ends[2]))
    assert told() == ["insert s/3", "insert s/4"]


@pytest.mark.parametrize(
    "operation",
    [
        Append(REGISTRY, JSON, b"1\n"),
        Append(REGISTRY, JSON, b"", close=True),
        Create(REGISTRY, JSON),
        Create(REGISTRY, TEXT, closed=True),
        Create(REGISTRY, None, fork=Fork("a")),
        Delete(REGISTRY),
        TakeOver(REGISTRY, "job"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_nobody_else_writes_to_it(operation: Operation, exists: bool) -> None:
    Stream.objects.create(path="a")
    if exists:
        move()
    (outcome,) = apply(operation)
    assert isinstance(outcome, RegistryReadOnly)
    assert outcome.headers == ((b"allow", b"GET, HEAD, OPTIONS"),)
    assert told() == ["insert a"]


def test_python_callers_do_not_write_to_it_either() -> None:
    move()
    registry = Stream.objects.get(path=REGISTRY)
    for write in (lambda: registry.append(1), registry.close, lambda: Stream.objects.ensure(REGISTRY)):
        with pytest.raises(RegistryReadOnly):
            write()
    assert list(registry.read()) == []


def test_an_operator_may_begin_anew() -> None:
    Stream.objects.create(path="a")
    move()
    Stream.objects.get(path=REGISTRY).delete()
    Stream.objects.create(path="b")
    assert told() == ["insert b"]


def test_a_fork_of_it_is_a_stream_as_others() -> None:
    move()
    fork = Stream.objects.get(path=REGISTRY).fork("fork")
    fork.append({"own": 1})
    assert told() == ["insert fork"]


def test_a_deleted_registry_keeps_its_path_while_it_has_forks_and_the_error_says_so() -> None:
    move()
    registry = Stream.objects.get(path=REGISTRY)
    fork = registry.fork("fork")
    registry.delete()
    assert isinstance(error := move(), StreamExists)
    assert "Delete these." in error.detail
    assert RegistryEntry.objects.count() == 1
    fork.delete()
    assert removal.collect(USING) == 1
    assert told() == ["insert fork", "delete fork"]


@pytest.mark.parametrize(("kind", "closed", "error"), [(TEXT, False, ContentTypeMismatch), (JSON, True, StreamClosed)])
def test_a_stream_that_cannot_be_the_registry_keeps_the_entries(
    kind: str, closed: bool, error: type[DurableStreamsError]
) -> None:
    with override_streams(REGISTRY_PATH=""):
        Stream.objects.create(path=REGISTRY, content_type=kind, closed=closed)
    Stream.objects.create(path="a")
    assert isinstance(move(), error)
    assert isinstance(move(), error)
    Stream.objects.get(path=REGISTRY).delete()
    assert told() == ["insert a"]


def test_without_the_setting_nothing_is_recorded_and_nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("insert_registry_entries", "select_registry_entries"):
        monkeypatch.setattr(statements_class(USING), name, lambda *args, name=name: calls.append(name) or [])

    def change() -> None:
        stream = Stream.objects.create(path="a", ttl=5)
        stream.close()
        stream.fork("fork").delete()
        stream.delete()
        apply(Create("b", TEXT), Append("b", TEXT, b"", close=True), Delete("b"))
        removal.expire(USING)

    change()
    assert calls
    calls.clear()
    with override_streams(REGISTRY_PATH=""), CaptureQueriesContext(connection) as captured:
        change()
        Stream.objects.create(path=REGISTRY).append(b"x")  # a stream as all others
    assert not calls
    assert not any(RegistryEntry._meta.db_table in query["sql"] for query in captured)


PATHS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.builds(lambda path, closed: Create(path, TEXT, closed=closed), PATHS, st.booleans()),
    st.builds(lambda path: Append(path, TEXT, b"x", close=True), PATHS),
    st.builds(lambda path: Append(path, TEXT, b"x"), PATHS),
    st.builds(Delete, PATHS),
    st.builds(lambda path, source: Create(path, None, fork=Fork(source)), PATHS, PATHS),
    st.just(MoveEntries(REGISTRY, 2)),
)


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=5), max_size=8))
def test_who_follows_the_registry_knows_the_streams(batches: list[list[Operation]]) -> None:
    with transaction.atomic():
        try:
            for batch in batches:
                apply(*batch)
            check_replay(messages())
        finally:
            transaction.set_rollback(True)


def test_messages_are_those_of_the_state_protocol() -> None:
    Stream.objects.create(path="a").delete()
    for message in messages():
        assert message.keys() <= {"type", "key", "value", "old_value", "headers"}
        assert message["headers"].keys() <= {"operation", "txid", "timestamp"}
        json.dumps(message)


def test_key_compaction_leaves_the_streams_that_exist() -> None:
    with override_streams(REGISTRY_PATH=REGISTRY, KEY_COMPACTION={REGISTRY: {"delay": 0, "tombstones": 600}}):
        for number in range(30):
            stream = Stream.objects.create(path=f"s/{number}", content_type="text/plain; charset=" + "x" * 200)
            for _ in range(10):
                stream.delete()
                stream = Stream.objects.create(path=f"s/{number}", content_type=TEXT)
        before = messages()
        now = clock.to_microseconds(clock.now())
        replaced = [compact_keys(now + hours * 3600 * SECOND) for hours in range(1, 4)]
        after = messages()
    assert any(replaced)
    assert len(after) < 100 < len(before)
    check_replay(after)


def test_retention_trims_it() -> None:
    apply(*(Create(f"s/{number}", TEXT) for number in range(10)))
    move()
    Stream.objects.get(path=REGISTRY).retain(messages=3)
    (plan,), _ = retention.plan(USING, [Stream.objects.get(path=REGISTRY).pk])
    (trim,) = retention.trims([plan])
    apply(trim)
    assert told() == [f"insert s/{number}" for number in (7, 8, 9)]
