"""Archives: what an export writes, an import restores exactly, into any database, or it changes nothing."""

import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.models import Chunk, Producer, Retention, StagedChunk, Stream, SubscriptionLink
from django_durable_streams.models.stream import LinkState
from django_durable_streams.protocol.errors import OffsetTrimmed, StreamGone
from django_durable_streams.protocol.retention import RetentionRules
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.archive import directory, dump, lines, records, restore, selection, transfer
from django_durable_streams.store.archive.directory import ArchiveReader
from django_durable_streams.store.archive.records import ArchiveError, BlockWriter, RecordReader
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.upkeep import compaction, key_compaction, removal, trimming
from django_durable_streams.store.write import group_commit
from tests.overriding import override_streams
from tests.store.contexts import Staging
from tests.store.key_compaction_steps import START, change, compact_keys, messages_of, state
from tests.subscriptions.steps import subscribe

JSON, TEXT = "application/json", "text/plain"
USING = "default"


@pytest.fixture(autouse=True)
def _database(db: None) -> None:
    pass


def export(target: Path, *patterns: str) -> transfer.Step:
    *_, last = [transfer.Step(), *transfer.export_streams(target, USING, patterns)]
    return last


def restore_from(source: Path, *patterns: str) -> transfer.Step:
    *_, last = transfer.import_streams(source, USING, patterns)
    return last


def contents(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def empty() -> None:
    """Delete all rows of streams, as in a new database."""
    Stream.objects.unguarded().update(source=None)
    with connection.cursor() as cursor:
        for model in (Chunk, StagedChunk, Producer, Retention, SubscriptionLink, Stream):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)}")


def moved(tmp_path: Path, *patterns: str) -> Path:
    """Export, empty the database, import, and export again. Both archives have the same bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    export(first, *patterns)
    empty()
    # Other ids than before.
    for number in range(3):
        Stream.objects.create(path=f"other/{number}").delete()
    restore_from(first)
    export(second, *patterns)
    assert contents(first) == contents(second)
    return first


def append(path: str, *parts: bytes, staged: bool = False) -> None:
    kind = Stream.objects.get(path=path).content_type
    for part in parts:
        group_commit.apply([Append(path, kind, part)], USING, Staging(staged))


def test_an_empty_database_gives_an_empty_archive(tmp_path: Path) -> None:
    moved(tmp_path)
    assert not Stream.objects.alive().exists()


def test_a_stream_comes_back_as_it_was(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="a/\u00e9", content_type=JSON, ttl=1000)
    stream.append({"n": 1}, seq="b", producer=("job", 2, 0))
    old_offset = stream.append({"n": 2}).offset
    stream.append_many([3, 4.0, [5]])
    stream.append({"n": 6}, close=True, producer=("job", 2, 1))
    names = [
        field.name
        for field in Stream._meta.concrete_fields
        if field.name not in ("id", "source", "link_state", "version_before_look", "version_after_look", "lineage")
    ]
    before = Stream.objects.filter(pk=stream.pk).values(*names).get()
    moved(tmp_path)
    again = Stream.objects.get(path="a/\u00e9")
    assert Stream.objects.filter(pk=again.pk).values(*names).get() == before
    assert list(again.read(old_offset)) == [3, 4.0, [5], {"n": 6}]
    producer = Producer.objects.get()
    assert (producer.name, producer.epoch, producer.seq) == ("job", 2, 1)


def test_clients_and_producers_go_on(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.append("one", producer=("job", 0, 0))
    offset = stream.next_offset
    moved(tmp_path)
    again = Stream.objects.get(path="a")
    assert again.append("one", producer=("job", 0, 0)).duplicate
    assert not again.append("two", producer=("job", 0, 1)).duplicate
    assert list(again.read(offset)) == ["two"]


def test_forks_come_back_with_the_data_of_deleted_sources(tmp_path: Path) -> None:
    source = Stream.objects.create(path="source", content_type=JSON, data=1)
    cut = source.append(2).offset
    source.append(3)
    fork = source.fork("fork", offset=cut)
    fork.append("fork")
    again = fork.fork("again")
    again.append("again")
    source.delete()
    fork.delete()
    moved(tmp_path)
    assert list(Stream.objects.get(path="again").read()) == [1, 2, "fork", "again"]
    assert list(Stream.objects.get(path="again").read(cut)) == ["fork", "again"]
    with pytest.raises(StreamGone):
        list(Stream.objects.get(path="source").read())
    Stream.objects.get(path="again").delete()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_housekeeping_during_an_import_leaves_forks_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_deleted: bool
) -> None:
    monkeypatch.setattr(restore, "STREAMS_PER_TRANSACTION", 1)
    source = Stream.objects.create(path="source", content_type=TEXT)
    first = source.append("one").offset
    source.append("two")
    between = Stream.objects.create(path="between", content_type=TEXT, data="x" * 3_000_000)
    fork = source.fork("fork")
    fork.append("three")
    between.fork("second")
    fork.fork("again")
    if is_deleted:
        source.delete()
    else:
        source.trim(before=first)
    export(tmp_path / "first")
    empty()
    for _ in transfer.import_streams(tmp_path / "first", USING):
        trimming.delete(USING, trimming.find(USING, trimming.trimmed(USING, 0, 100)))
        removal.collect(USING)
        removal.purge(USING)
    for path in ("fork", "again"):
        assert [*Stream.objects.get(path=path).read()] == ["one", "two", "three"]
    assert len(next(iter(Stream.objects.get(path="second").read()))) == 3_000_000
    step = restore_from(tmp_path / "first")
    assert (step.done, step.skipped) == (0, 5)


def test_a_fork_whose_source_was_trimmed_since_is_refused_before_anything_changes(tmp_path: Path) -> None:
    source = Stream.objects.create(path="source", content_type=TEXT)
    first = source.append("one").offset
    source.append("two")
    source.fork("fork")
    Stream.objects.create(path="a", content_type=TEXT)
    export(tmp_path / "first")
    for path in ("fork", "a"):
        Stream.objects.get(path=path).delete()
    source.trim(before=first)
    with pytest.raises(ArchiveError, match="source is there already and was trimmed"):
        restore_from(tmp_path / "first")
    assert Stream.objects.alive().count() == 1
    assert restore_from(tmp_path / "first", "a").done == 1
    with pytest.raises(ArchiveError, match="source is there already and was trimmed"):
        check_and_write_fork(tmp_path / "first")


def check_and_write_fork(archive: Path) -> None:
    """Restore a fork whose source is trimmed between the check and the restore."""
    writing = restore.Restore(USING)
    for stream in ArchiveReader(archive).streams():
        writing.add(stream)
    writing.flush()


def test_a_long_chain_of_forks_comes_back(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="0", content_type=JSON)
    for number in range(1, 150):
        stream.append(number)
        stream = stream.fork(str(number))
    moved(tmp_path)
    last = Stream.objects.get(path="149")
    assert list(last.read()) == list(range(1, 150))
    middle = Stream.objects.get(path="70").next_offset
    assert list(last.read(middle)) == list(range(72, 150))


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    for path in ("alive", "deleted", "expired"):
        Stream.objects.create(path=path)
    Stream.objects.get(path="deleted").delete()
    Stream.objects.unguarded().filter(path="expired").update(deadline=clock.now() - timedelta(seconds=1))
    moved(tmp_path)
    assert [stream.path for stream in Stream.objects.listing().streams] == ["alive"]


def test_an_expired_source_of_a_fork_stays_expired(tmp_path: Path) -> None:
    source = Stream.objects.create(path="source", content_type=TEXT, data="x", ttl=100)
    source.fork("fork", expires_at=clock.now() + timedelta(days=1))
    Stream.objects.unguarded().filter(path="source").update(deadline=clock.now() - timedelta(seconds=1))
    moved(tmp_path)
    assert list(Stream.objects.get(path="fork").read()) == ["x"]
    assert [stream.path for stream in Stream.objects.listing().streams] == ["fork"]


def test_a_pattern_brings_the_sources_of_forks_along(tmp_path: Path) -> None:
    source = Stream.objects.create(path="x/source", content_type=TEXT, data="x")
    source.fork("y/fork").fork("a/fork")
    Stream.objects.create(path="x/other")
    export(tmp_path / "first", "a/**")
    empty()
    assert restore_from(tmp_path / "first").done == 3
    assert list(Stream.objects.get(path="a/fork").read()) == ["x"]
    assert not Stream.objects.filter(path="x/other").exists()


def test_some_of_an_archive_can_be_restored(tmp_path: Path) -> None:
    source = Stream.objects.create(path="x/source", content_type=TEXT, data="x")
    source.fork("y/fork")
    Stream.objects.create(path="z")
    export(tmp_path / "first")
    empty()
    with pytest.raises(ArchiveError, match="x/source, whose data y/fork has"):
        restore_from(tmp_path / "first", "y/*")
    assert not Stream.objects.exists()
    assert restore_from(tmp_path / "first", "x/*").done == 1
    assert restore_from(tmp_path / "first", "y/*", "z").done == 2


def test_dropped_data_stays_dropped(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="a", content_type=JSON)
    append("a", *(b"%d\n" % number for number in range(10, 20)))
    Chunk.objects.unguarded().filter(stream=stream, end__lte=9)._raw_delete(USING)
    Stream.objects.unguarded().filter(pk=stream.pk).update(first_position=9)
    moved(tmp_path)
    assert list(Stream.objects.get(path="a").read()) == list(range(13, 20))
    Chunk.objects.unguarded()._raw_delete(USING)
    Stream.objects.unguarded().update(first_position=30)
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "second")
    moved(tmp_path)
    assert list(Stream.objects.get(path="a").read()) == []


def test_retention_comes_back(tmp_path: Path) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    Stream.objects.create(path="all", content_type=TEXT).retain()
    first = stream.append("one").offset
    stream.append("two")
    stream.retain(age=60, messages=5)
    stream.trim(before=first)
    fork = stream.fork("b")
    moved(tmp_path)
    again, fork = Stream.objects.get(path="a"), Stream.objects.get(path="b")
    assert again.retention == RetentionRules(age=60, messages=5)
    assert Stream.objects.get(path="all").retention_row.is_explicit
    assert (again.first_position, fork.inherited_from) == (3, 3)
    assert [*again.read()] == [*fork.read()] == ["two"]
    with pytest.raises(OffsetTrimmed):
        [*again.read(again.offset_at(0))]
    portion = trimming.find(USING, [again.pk])
    assert portion.chunk_ids or portion.cuts  # housekeeping deletes what the archive had of the trimmed data


def before_chunks(monkeypatch: pytest.MonkeyPatch, act: Callable[[Stream], object]) -> None:
    """Do something each time before the data of a stream is exported, after its row was read."""
    records = dump.Dump._records

    def acting(self: dump.Dump, stream: Stream, *args: Any, **kwargs: Any) -> Iterator[Any]:
        act(stream)
        return records(self, stream, *args, **kwargs)

    monkeypatch.setattr(dump.Dump, "_records", acting)


@pytest.mark.parametrize("is_trimmed_before", [False, True])
def test_a_stream_that_is_trimmed_during_an_export_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_trimmed_before: bool
) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    ends = [stream.append(text).offset for text in ("one", "two", "six")]

    def trim(count: int) -> None:
        stream.trim(before=ends[count - 1])
        Chunk.objects.unguarded().filter(end__lte=3 * count)._raw_delete(USING)

    if is_trimmed_before:
        trim(1)
    before_chunks(monkeypatch, lambda _: trim(2))
    assert export(tmp_path / "first").done == 1
    empty()
    restore_from(tmp_path / "first")
    again = Stream.objects.get(path="a")
    assert ([*again.read()], again.first_position) == (["six"], 6)


def test_an_export_of_a_stream_that_is_trimmed_all_the_time_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT, data="x")

    def trim(_: Stream) -> None:
        stream.trim(before=stream.append("x").offset)
        Chunk.objects.unguarded()._raw_delete(USING)
        stream.append("x")

    with monkeypatch.context() as patch:
        before_chunks(patch, trim)
        with pytest.raises(ArchiveError, match="a was trimmed or compacted 10 times"):
            export(tmp_path / "first")
    assert export(tmp_path / "first").done == 1


def test_a_compaction_between_two_reads_of_an_export_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "WINDOW_BYTES", 1)
    stream = Stream.objects.create(path="a", content_type=TEXT)
    append("a", b"one", b"two", b"six")
    export(tmp_path / "first")
    chunks = dump.Dump._chunks

    def compacting(self: dump.Dump, exported: Stream, position: int) -> Iterator[Any]:
        for chunk in chunks(self, exported, position):
            yield chunk
            compaction.compact(USING, [stream.pk])

    monkeypatch.setattr(dump.Dump, "_chunks", compacting)
    export(tmp_path / "second")
    assert Chunk.objects.count() == 2
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite has staged chunks")
def test_staged_chunks_are_exported(tmp_path: Path) -> None:
    group_commit.apply([Create("a", TEXT)], USING)
    append("a", b"1", b"22")
    append("a", b"333", b"4", staged=True)
    assert StagedChunk.objects.exists()
    moved(tmp_path)
    assert list(Stream.objects.get(path="a").read()) == ["1", "22", "333", "4"]


def test_chunks_of_any_size_give_the_same_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(records, "BLOCK_APPENDS", 50)
    monkeypatch.setattr(dump, "WINDOW_BYTES", 700)
    monkeypatch.setattr(restore, "BYTES_PER_TRANSACTION", 1500)
    numbers = random.Random(1)
    stream = Stream.objects.create(path="a", content_type="a/b")
    append("a", *(bytes([number % 256]) * numbers.choice([1, 3, 40, 900, 2500]) for number in range(150)))
    first = moved(tmp_path)
    stream = Stream.objects.get(path="a")
    while compaction.compact(USING, [stream.pk]):
        pass
    export(tmp_path / "third")
    assert contents(first) == contents(tmp_path / "third")


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), max_size=12), st.integers(0, 100))
def test_blocks_do_not_depend_on_pieces(pieces: list[list[int]], start: int) -> None:
    sizes = [size for piece in pieces for size in piece]
    data = bytes(number % 256 for number in range(sum(sizes)))

    def blocks(groups: Sequence[Sequence[int]]) -> list[tuple[int, list[int], bytes]]:
        writer = BlockWriter(start)
        written: list[records.DataRecord] = []
        position = start
        for group in groups:
            ends = []
            begin = position
            for size in group:
                position += size
                ends.append(position)
            written += writer.add(Segment(begin, data[begin - start : position - start], ends))
        written += writer.rest()
        return [(block.start, block.sizes, block.data) for block in written]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", 50)
        patch.setattr(records, "BLOCK_APPENDS", 4)
        whole, single = blocks([sizes] if sizes else []), blocks([[size] for size in sizes])
        assert blocks(pieces) == whole == single
    assert b"".join(block[2] for block in whole) == data
    assert [size for block in whole for size in block[1]] == sizes
    assert all(len(block[2]) <= 50 and len(block[1]) <= 4 for block in whole)


def test_many_streams_come_in_packs_and_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PACK_BYTES", 2000)
    monkeypatch.setattr(dump, "STREAMS_PER_QUERY", 7)
    monkeypatch.setattr(restore, "STREAMS_PER_TRANSACTION", 5)
    monkeypatch.setattr(transfer, "PATHS_PER_QUERY", 3)
    for number in range(40):
        Stream.objects.create(path=f"a/{number}", content_type=TEXT, data="x" * (number * 17 % 300))
    first = moved(tmp_path)
    assert len(ArchiveReader(first).index.packs) > 3
    assert ArchiveReader(first).index.streams == 40


def test_a_tar_file_has_the_same_archive(tmp_path: Path) -> None:
    Stream.objects.create(path="a", content_type=TEXT, data="x").fork("b")
    target = tmp_path / "all.tar"
    export(target)
    export(tmp_path / "again.tar")
    assert target.read_bytes() == (tmp_path / "again.tar").read_bytes()
    export(tmp_path / "all")
    with tarfile.open(target) as tar:
        assert sorted(tar.getnames()) == sorted(contents(tmp_path / "all"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.tar", "all", "all.tar"]
    empty()
    assert restore_from(target).done == 2
    with pytest.raises(ArchiveError, match="there already"):
        export(target)


# --- interruptions


def test_an_interrupted_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PACK_BYTES", 1)
    for number in range(6):
        Stream.objects.create(path=f"a/{number}", content_type=TEXT, data="x")
    export(tmp_path / "whole")
    target = tmp_path / "parts"
    for stop in (2, 3):
        steps = transfer.export_streams(target, USING)
        for _ in range(stop):
            next(steps)
        steps.close()  # type: ignore[attr-defined]
        with pytest.raises(ArchiveError, match="not finished"):
            restore_from(target)
    step = export(target)
    assert step.done == 6
    assert contents(target) == contents(tmp_path / "whole")
    with pytest.raises(ArchiveError, match="finished archive"):
        export(target)


def test_an_export_that_was_interrupted_at_the_tar_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stream.objects.create(path="a", content_type=TEXT, data="x")
    export(tmp_path / "whole.tar")
    target = tmp_path / "all.tar"
    with monkeypatch.context() as patch:
        patch.setattr(directory, "_add", lambda *_: pytest.fail("interrupted"))
        with pytest.raises(pytest.fail.Exception, match="interrupted"):
            export(target)
    assert not target.exists()
    assert export(target).done == 1
    assert target.read_bytes() == (tmp_path / "whole.tar").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.tar", "whole.tar"]


def test_only_the_owner_can_read_an_archive(tmp_path: Path) -> None:
    Stream.objects.create(path="a", content_type=TEXT, data="x")
    (tmp_path / "a").mkdir(mode=0o755)
    export(tmp_path / "a")
    export(tmp_path / "b.tar")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert len(files) == 3


def test_an_export_that_goes_on_leaves_out_what_was_created_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "PACK_BYTES", 1)
    Stream.objects.create(path="other", content_type=TEXT, data="x")
    for number in range(3):
        Stream.objects.create(path=f"a/{number}", content_type=TEXT, data="x")
    steps = transfer.export_streams(tmp_path / "a", USING, ["a/*"])
    next(steps)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    Stream.objects.get(path="a/0").delete()
    Stream.objects.create(path="a/0", content_type=TEXT, data="again")
    Stream.objects.get(path="other").fork("a/fork")
    assert export(tmp_path / "a", "a/*").done == 3
    empty()
    assert restore_from(tmp_path / "a").done == 3
    assert [*Stream.objects.get(path="a/0").read()] == ["x"]


def test_an_export_goes_on_with_the_same_streams_only(tmp_path: Path) -> None:
    Stream.objects.create(path="a/1", content_type=TEXT, data="x")
    next(transfer.export_streams(tmp_path / "a", USING))
    with pytest.raises(ArchiveError, match="other streams"):
        export(tmp_path / "a", "a/*")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ArchiveError, match="other files"):
        export(tmp_path / "b")


def test_an_interrupted_import_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "STREAMS_PER_TRANSACTION", 2)
    monkeypatch.setattr(restore, "BYTES_PER_TRANSACTION", 1000)
    for number in range(6):
        Stream.objects.create(path=f"a/{number}", content_type=TEXT, data="x" * (3000 if number == 3 else 5))
    export(tmp_path / "first")
    empty()
    steps = transfer.import_streams(tmp_path / "first", USING)
    for step in steps:
        if step.path == "a/3":
            break
    restored = Stream.objects.count()
    assert restored == 4
    Stream.objects.get(path="a/0").append("more")  # clients go on meanwhile
    step = restore_from(tmp_path / "first")
    assert (step.done, step.skipped) == (2, 4)
    assert list(Stream.objects.get(path="a/0").read()) == ["xxxxx", "more"]
    assert restore_from(tmp_path / "first").skipped == 6


@pytest.mark.parametrize(
    ("unstable", "in_portions"),
    [
        (None, True),
        ("ttl", False),
        ("expiry", False),
        ("own rules", False),
        ("pattern", False),
        ("trim", False),
        ("delete", False),
        ("ttl of a fork", False),
        ("ttl of a fork without forks", True),
    ],
)
def test_a_family_is_written_in_portions_unless_a_source_may_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unstable: str | None, in_portions: bool
) -> None:
    monkeypatch.setattr(restore, "STREAMS_PER_TRANSACTION", 1)
    lifetime: dict[str, Any] = {"ttl": {"ttl": 60}, "expiry": {"expires_at": clock.now() + timedelta(days=1)}}
    source = Stream.objects.create(path="a/0", content_type=TEXT, **lifetime.get(unstable or "", {}))
    first = source.append("one").offset
    source.append("two")
    for number in range(1, 5):
        source.fork(f"a/{number}", ttl=60 if unstable == "ttl of a fork" else None)
    Stream.objects.get(path="a/1").fork("a/5", ttl=60 if (unstable or "").startswith("ttl of") else None)
    if unstable == "own rules":
        source.retain(age=60)
    elif unstable == "trim":
        source.trim(before=first)
    elif unstable == "delete":
        source.delete()
    patterns = {"a/0": {"age": 60}} if unstable == "pattern" else {}
    export(tmp_path / "first")
    empty()
    with override_streams(RETENTION=patterns):
        counts = [Stream.objects.count() for step in transfer.import_streams(tmp_path / "first", USING) if step.path]
        assert counts == ([1, 2, 3, 4, 5, 6] if in_portions else [6] * 6)
        assert restore_from(tmp_path / "first").skipped == 6
        empty()
        for step in transfer.import_streams(tmp_path / "first", USING):
            if step.path == "a/3":
                break
        step = restore_from(tmp_path / "first")
    assert (step.done, step.skipped) == ((2, 4) if in_portions else (0, 6))
    kept = ["one", "two"]
    assert [[*Stream.objects.get(path=f"a/{number}").read()] for number in range(1, 6)] == [kept] * 5


def test_a_stream_that_is_deleted_while_it_is_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "WINDOW_BYTES", 10)
    for path in ("a", "b", "c"):
        Stream.objects.create(path=path, content_type=TEXT)
        append(path, *[b"0123456789"] * 3)
    chunks = dump.Dump._chunks

    def deleting(self: dump.Dump, stream: Stream, position: int) -> Iterator[Any]:
        for number, chunk in enumerate(chunks(self, stream, position)):
            if stream.path == "b" and number == 1:
                Stream.objects.get(path="b").delete()
                Chunk.objects.unguarded().filter(stream_id=stream.pk)._raw_delete(USING)
            yield chunk

    monkeypatch.setattr(dump.Dump, "_chunks", deleting)
    step = export(tmp_path / "first")
    assert (step.done, step.skipped) == (2, 1)
    empty()
    assert restore_from(tmp_path / "first").done == 2


def test_the_newest_stream_may_be_deleted_as_an_export_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a", "b", "c"):
        Stream.objects.create(path=path)
    select = selection.select

    def deleting(*args: Any) -> Any:
        ids = select(*args)
        for path in ("b", "c"):
            Stream.objects.get(path=path).delete()
        return ids

    monkeypatch.setattr(selection, "select", deleting)
    assert export(tmp_path / "first").done == 1


def test_the_fork_of_a_source_that_was_left_out_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Stream.objects.create(path="source", content_type=TEXT, data="one")
    fork = source.fork("fork")
    Stream.objects.create(path="other")

    def delete(stream: Stream) -> None:
        if stream.path == "source":
            fork.delete()
            source.delete()
            Chunk.objects.unguarded()._raw_delete(USING)

    before_chunks(monkeypatch, delete)
    step = export(tmp_path / "first")
    assert (step.done, step.skipped) == (1, 2)
    empty()
    assert restore_from(tmp_path / "first").done == 1


def test_appends_during_an_export_are_in_it_or_not_but_never_their_producers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.append("one", producer=("job", 0, 0))
    with_producers = dump.Dump._with_producers

    def appending(self: dump.Dump, ids: list[int]) -> set[int]:
        result = with_producers(self, ids)
        Stream.objects.get(path="a").append("two", producer=("job", 0, 1))
        return result

    monkeypatch.setattr(dump.Dump, "_with_producers", appending)
    export(tmp_path / "first")
    empty()
    restore_from(tmp_path / "first")
    again = Stream.objects.get(path="a")
    producer = Producer.objects.get()
    assert len(list(again.read())) == producer.seq + 1
    again.append("next", producer=("job", producer.epoch, producer.seq + 1))


# --- damage


def damaged_archive(tmp_path: Path) -> Path:
    for number in range(3):
        stream = Stream.objects.create(path=f"a/{number}", content_type=JSON, data={"n": number})
        stream.append({"n": "x" * 50}, producer=("job", 0, 0))
    target = tmp_path / "archive"
    export(target)
    empty()
    return target


def assert_refused(target: Path, match: str) -> None:
    with pytest.raises(ArchiveError, match=match) as error:
        restore_from(target)
    assert len(str(error.value).splitlines()) == 1
    assert not Stream.objects.exists()


def test_every_flipped_byte_is_found_and_its_place_is_named(tmp_path: Path) -> None:
    target = damaged_archive(tmp_path)
    pack = target / "packs" / "000001.streams"
    whole = pack.read_bytes()
    begins = []
    position = 0
    for text in whole.splitlines(keepends=True):
        if text[8:10] == b" {":
            begins.append(position)
        position += len(text)
    numbers = random.Random(7)
    for position in numbers.sample(range(len(whole)), 60):
        pack.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ArchiveError) as error:
            restore_from(target)
        named = int(str(error.value).partition("byte ")[2].partition(":")[0])
        assert named == max(begin for begin in begins if begin <= position)
        assert not Stream.objects.exists()
    pack.write_bytes(whole)
    assert restore_from(target).done == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_pack_that_is_cut_off_is_found(tmp_path: Path, share: float) -> None:
    target = damaged_archive(tmp_path)
    pack = target / "packs" / "000001.streams"
    data = pack.read_bytes()
    pack.write_bytes(data[: int(len(data) * share)])
    assert_refused(target, "000001.streams")


def test_a_record_that_is_missing_doubled_or_moved_is_found(tmp_path: Path) -> None:
    target = damaged_archive(tmp_path)
    pack = target / "packs" / "000001.streams"
    lines = pack.read_bytes().splitlines(keepends=True)
    index = (target / "index.json").read_bytes()

    def change(new_lines: list[bytes]) -> None:
        data = b"".join(new_lines)
        pack.write_bytes(data)
        content = msgspec.json.decode(index)
        content["packs"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (target / "index.json").write_bytes(msgspec.json.encode(content))

    for number in range(len(lines)):
        change(lines[:number] + lines[number + 1 :])
        assert_refused(target, "byte")
    size = len(lines) // 3
    for new_lines in (lines[:size] + lines, lines[size:] + lines[:size], lines[:2] + lines[1:]):
        change(new_lines)
        assert_refused(target, "byte")
    change(lines)
    assert restore_from(target).done == 3


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("index.json", b"", "damaged"),
        ("index.json", b"{}", "not the index"),
        ("index.json", b"[]", "not the index"),
        ("index.json", b'{"format": "durable-streams-archive", "version": 2}', "version 2"),
        ("index.json", b'{"format": "durable-streams-archive", "version": 1}', "damaged"),
        (
            "index.json",
            b'{"format": "durable-streams-archive", "version": 1, "patterns": [], "packs": [{"name": "../x", "size": 1,'
            b' "sha256": "", "streams": 1, "last": [1, "a"]}]}',
            "outside",
        ),
        ("packs/000001.streams", None, "missing"),
        ("index.json", None, "not an archive"),
    ],
)
def test_a_foreign_or_incomplete_archive_is_refused(tmp_path: Path, name: str, text: bytes | None, match: str) -> None:
    target = damaged_archive(tmp_path)
    if text is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(text)
    assert_refused(target, match)


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        member = tarfile.TarInfo("hello")
        tar.addfile(member, io.BytesIO())
    for name in ("nothing", "text.tar", "other.tar", "."):
        assert_refused(tmp_path / name, "no file|not an archive")


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "a//b"},
        {"path": "__ds/x"},
        {"content_type": "x"},
        {"tail": 1},
        {"data_from": 3},
        {"tail": 1, "data_from": 1},
        {"first_position": 10**9},
        {"generation": 0},
        {"generation": -1},
        {"ttl": -1},
        {"source": "a/0"},
        {"lineage": [["a/0", 0, 5, 1]]},
        {"fork_position": 3},
        {"fork_position": 2, "source": "x", "lineage": [["x", 1, 2, 1]]},
        {"created_at": 10**19},
        {"inherited_from": -1},
        {"retention": [0, None, None]},
        {"closed_by": "0:0:\x00"},
        {"last_seq": "\x00"},
        {"fork_position": 2, "tail": 2, "data_from": 2, "source": "x\x00", "lineage": [["x", 0, 2, 1]]},
        {"fork_position": 2, "tail": 2, "data_from": 2, "source": "x", "lineage": [["x\x00", 0, 2, 1]]},
        {"more": 1},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    record: dict[str, Any] = {
        "type": "stream",
        "path": "a",
        "content_type": TEXT,
        "generation": 5,
        "tail": 0,
        "data_from": 0,
        "first_position": 0,
        "inherited_from": None,
        "retention": None,
        "closed": False,
        "closed_by": "",
        "last_seq": None,
        "ttl": None,
        "expires_at": None,
        "deadline": None,
        "source": None,
        "fork_position": None,
        "lineage": None,
        "deleted_at": None,
        "created_at": 1,
        "appended_at": None,
    }

    def read(values: dict[str, Any]) -> int:
        text = lines.line_of(msgspec.json.encode(values))
        end = records.line(records.EndRecord("a", crc32(text)))
        return sum(len([*parts]) for parts in RecordReader(io.BytesIO(text + end), "x").streams())

    assert read(record) == 2
    with pytest.raises(ArchiveError, match="x, byte"):
        read(record | changes)


def test_a_producer_whose_name_no_database_stores_is_foreign() -> None:
    head = records.StreamRecord(
        *("a", TEXT, 5, 0, 0, 0, False, "", None, None, None, None, None, None, None, None), *(None, 1, None, None)
    )
    for name in ("p", "\x01p", "p\x00"):
        text = records.line(head) + records.line(records.ProducerRecord(name, 0, 0, 1))
        text += records.line(records.EndRecord("a", crc32(text)))
        stream = next(RecordReader(io.BytesIO(text), "x").streams())
        if "\0" in name:
            with pytest.raises(ArchiveError, match="x, byte"):
                list(stream)
        else:
            assert len([*stream]) == 3


@pytest.mark.parametrize(
    ("sizes", "gaps", "is_whole"),
    [
        ([4], None, True),
        ([2, 2], None, True),
        ([1, 3], None, False),
        ([3, 1], None, False),
        ([2, 0, 2], [0, 5, 0], True),
        ([0, 4], [3, 0], True),
        ([2, 1, 1], [0, 2, 0], False),
    ],
)
def test_an_append_of_json_has_whole_messages(sizes: list[int], gaps: list[int] | None, is_whole: bool) -> None:
    head = records.StreamRecord(
        *("a", JSON, 5, 4 + sum(gaps or ()), 0, 0, False, "", None, None, None, None, None, None, None, None),
        *(None, 1, None, None),
    )
    text = records.line(head) + records.line(records.data_record(0, sizes, b"1\n2\n", gaps))
    text += records.line(records.EndRecord("a", crc32(text)))
    stream = next(RecordReader(io.BytesIO(text), "x").streams())
    if is_whole:
        assert len([*stream]) == 3
    else:
        with pytest.raises(ArchiveError, match="ends inside a message"):
            list(stream)


def test_an_index_that_pretends_any_size_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = damaged_archive(tmp_path)
    with (target / "index.json").open("ab") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(directory, "MAX_INDEX_BYTES", 1 << 20)
    assert_refused(target, "more than 1,048,576 bytes")


def test_a_path_that_another_stream_has_is_named_before_anything_changes(tmp_path: Path) -> None:
    target = damaged_archive(tmp_path)
    Stream.objects.create(path="a/2", content_type=TEXT)
    with pytest.raises(ArchiveError, match="another stream at a/2"):
        restore_from(target)
    assert Stream.objects.count() == 1
    Stream.objects.get(path="a/2").delete()
    assert restore_from(target).done == 3


def test_damaged_data_of_a_stream_is_named(tmp_path: Path) -> None:
    Stream.objects.create(path="a", content_type=TEXT)
    append("a", b"one", b"two")
    Chunk.objects.unguarded().filter(start=3)._raw_delete(USING)
    with pytest.raises(ArchiveError, match="data of a is damaged or missing at position 3"):
        export(tmp_path / "first")


def test_a_restored_stream_is_followed_by_subscriptions(tmp_path: Path) -> None:
    Stream.objects.create(path="events/a", content_type=TEXT, data="x")
    export(tmp_path / "first")
    empty()
    subscribe("s", "events/*")
    restore_from(tmp_path / "first")
    link = SubscriptionLink.objects.get()
    stream = Stream.objects.get()
    assert (link.path, link.stream_id, link.acked_position) == ("events/a", stream.pk, None)
    assert stream.link_state == LinkState.UNSEEN


def test_a_compacted_stream_comes_back_with_its_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    stream = Stream.objects.create(path="s/a", content_type=JSON)
    stream.append_many([change("a", 1), change("b", 1), change("a", 2)])
    for number in range(6):
        stream.append(change("c" if number % 2 else "a", number))
    with override_streams(KEY_COMPACTION={"s/**": {"delay": 0, "tombstones": 3600}}):
        stream.append(change("d"))
        stream.append(change("a", 8))
        compact_keys(START)
        assert len(list(stream.read())) == 4
        compact_keys(START + 3601 * 1_000_000)
        stream.append(change("a", 9))
    left = messages_of(stream)
    assert [json.loads(message.data) for message in left] == [
        *(change("b", 1), change("c", 5)),
        *(change("a", 8), change("a", 9)),
    ]
    tail = Stream.objects.get(path="s/a").tail_position
    moved(tmp_path)
    again = Stream.objects.get(path="s/a")
    assert messages_of(again) == left
    assert again.tail_position == tail
    for message in left:
        expected = [json.loads(one.data) for one in left if one.end > message.end]
        assert list(again.read(again.offset_at(message.end))) == expected
    again.append(change("e", 1))
    assert list(again.read())[-1] == change("e", 1)


def test_an_export_has_the_state_of_one_moment_whatever_is_compacted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    stream = Stream.objects.create(path="s/a", content_type=JSON)
    for number in range(6):
        stream.append(change(str(number % 3), number))
    has_compacted = False

    def compact(_: Stream) -> None:
        nonlocal has_compacted
        if not has_compacted:
            has_compacted = True
            for number in range(6, 9):
                stream.append(change(str(number % 3), number))
            compact_keys(START)

    before_chunks(monkeypatch, compact)
    with override_streams(KEY_COMPACTION={"s/**": {"delay": 0}}):
        assert export(tmp_path / "first").done == 1
    assert has_compacted
    empty()
    restore_from(tmp_path / "first")
    assert state(Stream.objects.get(path="s/a").read()) == {("row", str(key)): 6 + key for key in range(3)}


@given(
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 9)).filter(any), min_size=1, max_size=12),
    st.integers(0, 11),
    st.integers(0, 11),
)
def test_blocks_with_gaps_do_not_depend_on_the_pieces(parts: list[tuple[int, int]], first: int, second: int) -> None:
    def written(cuts: set[int]) -> list[Any]:
        writer, start = BlockWriter(7), 7
        blocks: list[records.DataRecord] = []
        ends: list[int] = []
        places: list[int] = []
        data = b""
        position = 7
        for number, (gap, size) in enumerate(parts):
            position += gap + size
            data += bytes([number]) * size
            ends.append(position)
            places.append(len(data))
            if number in cuts or number == len(parts) - 1:
                blocks += writer.add(Segment(start, data, ends, places=places))
                start, ends, places, data = position, [], [], b""
        blocks += writer.rest()
        return [(block.start, block.sizes, block.gaps, block.data) for block in blocks]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", 16)
        patch.setattr(records, "MAX_SPARSE_RANGE", 100)
        blocks = written({first, second})
        assert blocks == written(set())
    position = 7
    for start, sizes, gaps, data in blocks:
        assert start == position
        assert sum(sizes) == len(data)
        position += sum(sizes) + sum(gaps or ())
        assert position - start <= 100 + 16
    assert position == 7 + sum(gap + size for gap, size in parts)
