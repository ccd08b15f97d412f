"""Cursors in archives: consumers and subscriptions go on exactly where they were, in another database too."""

import hashlib
import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from django.core.management.base import CommandError
from django.db import connection

from django_durable_streams.consumers import Batch
from django_durable_streams.models import (
    Chunk,
    Producer,
    RegistryEntry,
    Retention,
    StagedChunk,
    Stream,
    Subscription,
    SubscriptionLink,
)
from django_durable_streams.store.archive import transfer
from django_durable_streams.store.archive.directory import INDEX, SUBSCRIPTIONS, ArchiveReader
from django_durable_streams.store.archive.lines import ArchiveError
from django_durable_streams.store.operations import MoveEntries
from django_durable_streams.store.write import group_commit
from django_durable_streams.subscriptions import backfill, leases, operating, registry
from django_durable_streams.subscriptions.archive import SubscriptionImport
from django_durable_streams.subscriptions.rules import changing_link_rules
from tests.management.commands import streams
from tests.overriding import override_streams
from tests.store.archive.test_archive import contents, export
from tests.subscriptions.consumers.steps import json_stream, register, run, subscribed
from tests.subscriptions.steps import USING, acked, one_wake, request, stream, subscribe, wakes

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_consumers")]


def empty() -> None:
    """Delete all rows of streams and subscriptions, as in a new database."""
    Stream.objects.unguarded().update(source=None)
    with connection.cursor() as cursor:
        for model in (Chunk, StagedChunk, Producer, Retention, SubscriptionLink, Subscription, Stream, RegistryEntry):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)}")
    with changing_link_rules(USING):  # this process knows the rules of the subscriptions that were there
        pass


def restore_from(source: Path, *patterns: str) -> tuple[int, int]:
    """Import with cursors. Return the number of subscriptions and cursors."""
    cursors = SubscriptionImport(ArchiveReader(source), USING, patterns)
    cursors.check()
    list(transfer.import_streams(source, USING, patterns, cursors.check_stream))
    *_, last = [(0, 0), *cursors.restore()]
    while unfinished := backfill.unfinished(USING):
        for subscription_id in unfinished:
            backfill.link_portion(subscription_id, USING)
    return tuple(last)  # type: ignore[return-value]


def moved(tmp_path: Path) -> Path:
    """Export, empty the database, import, and export again. Both archives have the same bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    export(first)
    empty()
    Stream.objects.create(path="other").delete()  # other ids than before
    restore_from(first)
    export(second)
    assert contents(first) == contents(second)
    return first


def test_a_consumer_goes_on_where_it_was(tmp_path: Path) -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    json_stream("s/1", 1, 2)
    json_stream("s/2", "a")
    run(one)
    Stream.objects.get(path="s/1").append(3)
    json_stream("s/3", "new")
    handled.clear()
    moved(tmp_path)
    run(one)
    assert sorted(map(str, handled)) == ["3", "new"]


def test_a_consumer_that_has_stopped_waits_for_its_operator_there_too(tmp_path: Path) -> None:
    def fail(batch: Batch) -> None:
        raise ValueError("a secret")

    one = register(fail, on_failure="stop", max_attempts=1)
    json_stream("s/1", 1)
    run(one)
    assert SubscriptionLink.objects.get().is_stopped
    archive = moved(tmp_path)
    link = SubscriptionLink.objects.get()
    assert (link.is_stopped, link.last_error, link.failures, link.holder) == (True, "", 0, "")
    assert b"a secret" not in (archive / SUBSCRIPTIONS).read_bytes()


def test_subscriptions_go_on_without_their_wakes(tmp_path: Path) -> None:
    subscription = subscribe("hooks", "events/*", "explicit", "later")
    subscribe("pull", "events/*", kind="pull-wake")
    stream("events/a", b"one")
    stream("explicit", b"x")
    stream("never", b"x")
    before = Stream.objects.get(path="events/a").next_offset
    wake = next(wake for wake in wakes() if wake.subscription.pk == subscription.pk)
    leases.callback("hooks", wake.token, request(wake, ("events/a", before)), USING)
    Stream.objects.get(path="events/a").append("two")
    operating.pause("pull", USING)
    rows = Subscription.objects.order_by("name")
    fields = ["name", "kind", "pattern", "webhook_url", "receiver", "wake_stream", "lease_ms", "description"]
    fields += ["config_hash", "base_url", "is_paused", "generation", "created_at"]
    saved = list(rows.values(*fields))
    moved(tmp_path)
    assert list(rows.values(*fields)) == saved
    assert {(row.wake_id, row.holder, row.lease_expires_at, row.last_error) for row in rows} == {("", "", None, "")}
    hooks = rows.get(name="hooks").links
    assert {link.path: (link.acked_position, link.is_explicit, link.is_glob) for link in hooks.all()} == {
        "events/a": (3, False, True),
        "explicit": (None, True, False),
        "later": (None, True, False),
    }
    assert {wake.subscription.name for wake in wakes()} == {"hooks"}  # the other one is paused
    stream("later", b"x")
    assert hooks.get(path="later").stream is not None
    stream("events/new", b"x")
    assert hooks.get(path="events/new").acked_position is None


def test_existing_streams_that_the_archive_lacks_are_linked_at_their_ends(tmp_path: Path) -> None:
    subscribe("s", "events/*")
    stream("events/a")
    export(tmp_path / "archive")
    empty()
    stream("events/b", b"old")
    assert restore_from(tmp_path / "archive") == (1, 1)
    assert (acked("events/a"), acked("events/b")) == (None, 3)
    assert [link.path for link in one_wake().pending] == ["events/a"]


def test_cursors_never_go_back_and_an_import_can_be_repeated(tmp_path: Path) -> None:
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    json_stream("s/1", 1)
    json_stream("s/2", "a")
    run(one)
    Stream.objects.get(path="s/1").append(2)
    export(tmp_path / "archive")
    empty()
    restore_from(tmp_path / "archive")
    run(one)
    assert handled == [1, "a", 2] or handled == ["a", 1, 2]
    assert restore_from(tmp_path / "archive") == (1, 0)
    run(one)
    assert len(handled) == 3


def test_a_consumer_that_has_begun_already_is_moved_on(tmp_path: Path) -> None:
    """Its worker was started before the import, so it has linked the imported streams at their beginnings."""
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages))
    json_stream("s/1", 1, 2)
    run(one)
    export(tmp_path / "archive")
    empty()
    subscribed(one)
    handled.clear()
    restore_from(tmp_path / "archive")
    run(one)
    assert handled == []


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.subscriptions.archive.LINKS_PER_STEP", 2)
    subscribe("a", "events/*")
    subscribe("b", "events/*")
    for number in range(5):
        stream(f"events/{number}")
    wake = one_wake_of("a")
    offset = Stream.objects.get(path="events/3").next_offset
    leases.callback("a", wake.token, request(wake, ("events/3", offset)), USING)
    export(tmp_path / "archive")
    empty()
    cursors = SubscriptionImport(ArchiveReader(tmp_path / "archive"), USING)
    cursors.check()
    list(transfer.import_streams(tmp_path / "archive", USING))
    next(cursors.restore())
    assert Subscription.objects.get().linked_through is None  # nothing else may set the cursors that are missing
    assert restore_from(tmp_path / "archive")[0] == 2
    assert SubscriptionLink.objects.count() == 10
    assert SubscriptionLink.objects.get(subscription__name="a", path="events/3").acked_position == 1
    export(tmp_path / "again")
    assert contents(tmp_path / "archive") == contents(tmp_path / "again")


def one_wake_of(name: str) -> Any:
    return next(wake for wake in wakes() if wake.subscription.name == name)


def test_patterns_choose_cursors(tmp_path: Path) -> None:
    subscribe("a", "events/*")
    subscribe("b", "**")
    for path in ("events/1", "events/2", "other/1"):
        stream(path)
    export(tmp_path / "some", "other/*")
    export(tmp_path / "all")
    assert {line["name"] for line in lines(tmp_path / "some") if "name" in line} == {"b"}
    empty()
    assert restore_from(tmp_path / "all", "events/1") == (2, 2)
    assert set(SubscriptionLink.objects.values_list("path", flat=True)) == {"events/1"}


def test_cursors_that_are_chosen_first_skip_nothing_of_the_others(tmp_path: Path) -> None:
    """The pattern would link the other streams at their ends, and no later import moves a cursor back."""
    handled: list[Any] = []
    one = register(lambda batch: handled.extend(batch.messages), start="new")
    subscribed(one)
    for path in ("s/1", "s/2", "s/3"):
        json_stream(path, "old")
    run(one)
    for path in ("s/1", "s/2"):
        Stream.objects.get(path=path).append(path)
    export(tmp_path / "archive")
    handled.clear()
    empty()
    list(transfer.import_streams(tmp_path / "archive", USING))
    assert restore_from(tmp_path / "archive", "s/3")[0] == 1
    assert restore_from(tmp_path / "archive")[0] == 1
    run(one)
    assert sorted(handled) == ["s/1", "s/2"]
    Stream.objects.get(path="s/1").append("later")
    restore_from(tmp_path / "archive", "s/3")
    run(one)
    assert handled[2:] == ["later"]


@pytest.mark.parametrize("position", ["None", "1"])
def test_a_stop_at_the_same_cursor_is_restored(tmp_path: Path, position: str) -> None:
    """The worker was started before the import, and has not come to the stream yet."""
    fails = False

    def handle(batch: Batch) -> None:
        if fails:
            raise ValueError

    one = register(handle, on_failure="stop", max_attempts=1)
    json_stream("s/1", 1)
    if position == "1":
        run(one)
        Stream.objects.get(path="s/1").append(2)
    fails = True
    run(one)
    export(tmp_path / "archive")
    empty()
    subscribed(one)
    list(transfer.import_streams(tmp_path / "archive", USING))
    if position == "1":
        SubscriptionLink.objects.unguarded().update(acked_position=2)
    restore_from(tmp_path / "archive")
    assert SubscriptionLink.objects.get().is_stopped


def test_an_explicit_link_stays_one_where_the_pattern_has_linked_the_stream(tmp_path: Path) -> None:
    subscribe("s", "events/*")
    stream()
    registry.add_streams("s", ["events/a"], USING)
    export(tmp_path / "archive")
    empty()
    subscribe("s", "events/*")
    restore_from(tmp_path / "archive")
    link = SubscriptionLink.objects.get()
    assert (link.is_explicit, link.is_glob) == (True, True)


def test_streams_of_later_generations_get_no_cursor(tmp_path: Path) -> None:
    subscribe("s", "none", "events/a")
    stream("events/a")
    export(tmp_path / "archive")
    empty()
    cursors = SubscriptionImport(ArchiveReader(tmp_path / "archive"), USING)
    cursors.check()
    stream("events/a", b"another")
    *_, last = cursors.restore()
    assert last == (1, 0)


def test_without_the_option_the_cursors_stay_in_the_archive(tmp_path: Path) -> None:
    subscribe("s", "events/*")
    stream()
    streams("export", str(tmp_path / "archive.tar"))
    empty()
    streams("import", str(tmp_path / "archive.tar"))
    assert not Subscription.objects.exists()
    output = streams("import", str(tmp_path / "archive.tar"), "--cursors")
    assert "1 cursors of 1 subscriptions are set" in str(output)
    assert SubscriptionLink.objects.get().stream is not None


def lines(archive: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line[9:]) for line in (archive / SUBSCRIPTIONS).read_bytes().splitlines()]


def rewrite(archive: Path, number: int, **changes: Any) -> int:
    """Change a record, as another program would that knows the format. Return the byte at which it begins."""
    rows = lines(archive)
    rows[number] |= changes
    texts = [msgspec.json.encode(row) for row in rows]
    data = [b"%08x %b\n" % (crc32(text), text) for text in texts]
    write(archive, b"".join(data))
    return sum(map(len, data[:number]))


def write(archive: Path, data: bytes, *, in_index: bool = True) -> None:
    (archive / SUBSCRIPTIONS).write_bytes(data)
    if in_index:
        index = msgspec.json.decode((archive / INDEX).read_bytes())
        index["subscriptions"] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (archive / INDEX).write_bytes(msgspec.json.encode(index))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    subscribe("s", "events/*")
    subscribe("t", "events/*", kind="pull-wake")
    stream()
    export(tmp_path / "archive")
    empty()
    return tmp_path / "archive"


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (0, {"kind": "other"}),
        (0, {"kind": "consumer"}),
        (0, {"name": "\x01s"}),
        (0, {"name": "z"}),
        (0, {"name": ""}),
        (0, {"name": "\x00"}),
        (0, {"name": "a/b"}),
        (0, {"name": ".."}),
        (0, {"name": "a" * 257}),
        (0, {"kind": "consumer", "name": "\x01a\x00", "webhook_url": ""}),
        (0, {"kind": "consumer", "name": "\x01", "webhook_url": ""}),
        (0, {"kind": "consumer", "name": "\x01" + "a" * 257, "webhook_url": ""}),
        (0, {"description": "a\x00"}),
        (0, {"base_url": "http://testserver/\x00"}),
        (0, {"config_hash": "\x00"}),
        (0, {"webhook_url": "https://example.com/\x00"}),
        (0, {"webhook_url": "https://user:password@example.com/"}),
        (0, {"pattern": "a//b"}),
        (0, {"webhook_url": "ftp://example.com/"}),
        (0, {"webhook_url": ""}),
        (0, {"lease_ms": 0}),
        (0, {"secret": "x"}),
        (0, {"type": "link"}),
        (1, {"path": "a/../b"}),
        (1, {"path": "events/\x00"}),
        (1, {"position": -1}),
        (1, {"position": 10**6}),
        (1, {"position": "1"}),
        (1, {"generation": None}),
        (2, {"wake_stream": "a//b"}),
        (2, {"name": "a"}),
        (3, {"generation": 2**70}),
    ],
)
def test_a_foreign_record_changes_nothing_and_is_named(archive: Path, number: int, changes: dict[str, Any]) -> None:
    place = rewrite(archive, number, **changes)
    with pytest.raises(ArchiveError, match=rf"{SUBSCRIPTIONS}, byte ({place}|\d+): "):
        restore_from(archive)
    with pytest.raises(CommandError, match=f"{SUBSCRIPTIONS}, byte "):
        streams("import", str(archive), "--cursors")
    with pytest.raises(CommandError, match=f"{SUBSCRIPTIONS}, byte "):
        streams("import", str(archive), "--cursors", "--dry-run")
    assert not Stream.objects.exists()
    assert not Subscription.objects.exists()


def test_a_wake_stream_that_is_the_registry_here_is_named(archive: Path) -> None:
    with override_streams(REGISTRY_PATH="wake"):
        with pytest.raises(ArchiveError, match=rf"{SUBSCRIPTIONS}, byte [1-9]\d*: t: .*registry"):
            restore_from(archive)
        assert not Stream.objects.exists()
    assert restore_from(archive) == (2, 2)


def test_each_damaged_byte_is_found(archive: Path) -> None:
    data = (archive / SUBSCRIPTIONS).read_bytes()
    for place in range(0, len(data), 29):
        write(archive, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], in_index=False)
        for option in ([], ["--cursors"]):
            with pytest.raises(CommandError, match=SUBSCRIPTIONS):
                streams("import", str(archive), *option)
    line_ends = [place for place in range(len(data)) if data[place : place + 1] == b"\n"]
    for end in (0, *line_ends[:-1], len(data) - 5):
        write(archive, data[: end + 1], in_index=False)
        with pytest.raises(CommandError, match=SUBSCRIPTIONS):
            streams("import", str(archive), "--cursors")
    (archive / SUBSCRIPTIONS).unlink()
    with pytest.raises(CommandError, match="is missing"):
        streams("import", str(archive))
    assert not Stream.objects.exists()


def test_another_configuration_here_is_named(archive: Path) -> None:
    subscribe("t", "other/*", kind="pull-wake")
    with pytest.raises(ArchiveError, match=rf"{SUBSCRIPTIONS}, byte [1-9]\d*: t is here already"):
        restore_from(archive)
    assert not Stream.objects.exists()
    registry.delete("t", USING)
    assert restore_from(archive) == (2, 2)


def test_an_archive_of_an_earlier_version_has_no_cursors(archive: Path) -> None:
    index = msgspec.json.decode((archive / INDEX).read_bytes())
    del index["subscriptions"]
    (archive / INDEX).write_bytes(msgspec.json.encode(index))
    (archive / SUBSCRIPTIONS).unlink()
    assert restore_from(archive) == (0, 0)
    assert Stream.objects.count() == 1


def test_an_interrupted_export_keeps_its_cursors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe("s", "events/*")
    stream()
    export(tmp_path / "whole")
    next(transfer.export_streams(tmp_path / "part", USING))
    export(tmp_path / "part")
    assert contents(tmp_path / "whole") == contents(tmp_path / "part")
    shutil.rmtree(tmp_path / "part")


@override_streams(REGISTRY_PATH="__registry__")
def test_the_registry_stays_where_it_is(tmp_path: Path) -> None:
    stream()
    move_entries()
    export(tmp_path / "archive")
    assert {head.path for head in heads(tmp_path / "archive")} == {"events/a"}


@override_streams(REGISTRY_PATH="__registry__")
def test_forks_of_the_registry_stay_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The registry of another database has the path of their source."""
    stream()
    Stream.objects.get(path="events/a").fork("fork")
    move_entries()
    copy = Stream.objects.get(path="__registry__").fork("copy")
    copy.fork("copies/second")
    copy.delete()
    export(tmp_path / "archive")
    export(tmp_path / "some", "copies/*")
    assert caplog.text.count("copies/second stays out of the archive") == 2
    assert [head.path for head in heads(tmp_path / "archive")] == ["events/a", "fork"]
    assert heads(tmp_path / "some") == []
    empty()
    stream("other")
    move_entries()
    restore_from(tmp_path / "archive")
    assert set(Stream.objects.values_list("path", flat=True)) == {"__registry__", "events/a", "fork", "other"}


def test_no_other_stream_is_restored_at_the_path_of_the_registry(tmp_path: Path) -> None:
    stream("events/a")
    Stream.objects.get(path="events/a").fork("fork")
    export(tmp_path / "archive")
    for is_there in (False, True):
        empty()
        with override_streams(REGISTRY_PATH="events/a"):
            if is_there:
                group_commit.apply([MoveEntries("events/a", 10)], USING)
            for options in ([], ["--cursors"], ["--dry-run"]):
                with pytest.raises(CommandError, match="events/a is the path of the registry here"):
                    streams("import", str(tmp_path / "archive"), *options)
            assert Stream.objects.count() == is_there
    empty()
    assert restore_from(tmp_path / "archive") == (0, 0)
    with override_streams(REGISTRY_PATH="events/a"):  # the stream of the archive is the registry here by now
        assert restore_from(tmp_path / "archive") == (0, 0)
    assert Stream.objects.count() == 2


def move_entries() -> None:
    group_commit.apply([MoveEntries("__registry__", 10)], USING)


def heads(archive: Path) -> list[Any]:
    return [next(iter([*records])) for records in ArchiveReader(archive).streams()]
