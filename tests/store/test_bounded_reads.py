"""The cost of a read: it depends on the data of the page, and not on the data after it. On every database."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable_streams.models import Chunk, StagedChunk, Stream
from django_durable_streams.store.operations import Append, Create, Fork
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.write import group_commit
from tests.tokens import offset_in

pytestmark = pytest.mark.django_db

TEXT = "application/octet-stream"
LONG_STREAM_APPENDS = 3000


def make(path: str, chunks: int, size: int = 10, model: type[Chunk] | type[StagedChunk] = Chunk) -> Stream:
    """Return a stream of many chunks that nobody has merged."""
    group_commit.apply([Create(path, TEXT)], "default")
    stream = Stream.objects.get(path=path)
    extra = {"block": 0} if model is StagedChunk else {}
    rows = [
        model(stream=stream, start=number * size, end=(number + 1) * size, data=b"x" * size, **extra)
        for number in range(chunks)
    ]
    model.objects.unguarded().bulk_create(rows, batch_size=500)  # type: ignore[arg-type]
    Stream.objects.filter(pk=stream.pk).unguarded().update(tail_position=chunks * size)
    return stream


def page(path: str, position: int, limit: int, cache: SegmentCache | None = None) -> bytes:
    info = log_reader.find([path], "default")[path]
    request = log_reader.PageRequest(info, position, limit)  # type: ignore[arg-type]
    segment = log_reader.pages([request], cache or SegmentCache(0), "default")[info.id, position]  # type: ignore[union-attr]
    return b"" if segment is None else segment.data


def looked_at(read: Callable[[], object]) -> int:
    """Return how much work a read is for the database: rows, or steps of its virtual machine."""
    return {"sqlite": _sqlite_steps, "postgresql": _postgresql_rows, "mysql": _mysql_rows}[connection.vendor](read)


def _sqlite_steps(read: Callable[[], object]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.ensure_connection()
    connection.connection.set_progress_handler(count, 1)
    try:
        read()
    finally:
        connection.connection.set_progress_handler(None, 1)
    return steps


def _mysql_rows(read: Callable[[], object]) -> int:
    def total() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())

    before = total()
    read()
    return total() - before


def _postgresql_rows(read: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as queries:
        read()
    (sql,) = (query["sql"] for query in queries if '"durable_streams_chunk"' in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.replace('%', '%%')}")
        (plan,) = cursor.fetchone()
    return _rows((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])


def _rows(node: dict[str, Any]) -> int:
    own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(own * node["Actual Loops"]) + sum(map(_rows, node.get("Plans", ())))


@pytest.mark.parametrize("position", [0, 5, 495])
@pytest.mark.parametrize(
    "model",
    [
        Chunk,
        pytest.param(StagedChunk, marks=pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's only")),
    ],
)
def test_a_page_reads_no_rows_after_its_end(model: type[Chunk] | type[StagedChunk], position: int) -> None:
    make("short", 100, model=model)
    make("long", LONG_STREAM_APPENDS, model=model)
    for path in ("short", "long"):
        assert page(path, position, 100) == b"x" * 100
    short, long = (looked_at(lambda path=path: page(path, position, 100)) for path in ("short", "long"))
    assert long < 1.5 * short + 20


def test_pages_of_several_streams_are_bounded_together() -> None:
    for number in range(5):
        make(f"s/{number}", LONG_STREAM_APPENDS // 5)
    infos = log_reader.find([f"s/{number}" for number in range(5)], "default")

    def read(limit: int) -> None:
        requests = [log_reader.PageRequest(info, 20, limit) for info in infos.values()]  # type: ignore[arg-type]
        segments = log_reader.pages(requests, SegmentCache(0), "default")
        assert {len(segment.data) for segment in segments.values() if segment is not None} == {limit}

    assert looked_at(lambda: read(100)) < 0.3 * looked_at(lambda: read(LONG_STREAM_APPENDS))


def test_a_fork_does_not_read_its_source_after_the_cut() -> None:
    make("short", 12)
    make("long", LONG_STREAM_APPENDS)
    for path in ("short", "long"):
        group_commit.apply([Create(f"fork-of-{path}", TEXT, fork=Fork(path, offset_in(path, 100)))], "default")
        group_commit.apply([Append(f"fork-of-{path}", TEXT, b"own")], "default")
    for path in ("short", "long"):
        assert page(f"fork-of-{path}", 0, 1 << 20) == b"x" * 100 + b"own"
    short, long = (looked_at(lambda path=path: page(f"fork-of-{path}", 0, 1 << 20)) for path in ("short", "long"))
    assert long < 1.5 * short + 20


@pytest.mark.parametrize("cut", [95, 100, 103])
def test_segments_read_for_a_fork_serve_its_source(cut: int) -> None:
    make("source", 30)
    group_commit.apply([Create("fork", TEXT, fork=Fork("source", offset_in("source", cut)))], "default")
    cache = SegmentCache(1 << 20)
    for _ in range(2):
        assert page("fork", 0, 1 << 20, cache) == b"x" * cut
        assert page("source", 0, 1 << 20, cache) == b"x" * 300
        assert page("source", 0, 200, cache) == b"x" * 200


def test_a_page_of_a_fork_has_a_bounded_number_of_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "MAX_PIECES", 3)
    group_commit.apply([Create("s/0", TEXT), Append("s/0", TEXT, b"0")], "default")
    for number in range(1, 10):
        group_commit.apply([Create(f"s/{number}", TEXT, fork=Fork(f"s/{number - 1}"))], "default")
        group_commit.apply([Append(f"s/{number}", TEXT, b"%d" % number)], "default")
    pages = [page("s/9", position, 100) for position in (0, 3, 6, 9)]
    assert pages == [b"012", b"345", b"678", b"9"]
