"""Forks against a plain model in memory: random trees, and every offset that was ever returned."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.errors import (
    ContentTypeMismatch,
    DurableStreamsError,
    OffsetOutOfRange,
    SourceGone,
    StreamExists,
    StreamNotFound,
)
from django_durable_streams.store.operations import Append, Appended, Create, Created, Delete, Fork
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.upkeep import compaction, removal
from django_durable_streams.store.write import group_commit
from tests.examples import enough
from tests.tokens import offset_in

pytestmark = pytest.mark.django_db

JSON = "application/json"
TEXT = "text/plain"


def one(operation: Any) -> Any:
    """Apply an operation, and return its result or raise its error."""
    outcomes, _ = group_commit.apply([operation], "default")
    if isinstance(outcomes[0], DurableStreamsError):
        raise outcomes[0]
    return outcomes[0]


def create(path: str, content_type: str = TEXT, data: bytes = b"", **options: Any) -> Created:
    return one(Create(path, content_type, data=data, **options))


def fork(path: str, source: Any, position: int | None = None, sub_offset: Any = 0, **options: Any) -> Created:
    offset = None if position is None else offset_in(source, position)
    return one(Create(path, options.pop("content_type", None), fork=Fork(source, offset, sub_offset), **options))


def append(path: str, data: bytes, content_type: str = TEXT) -> Appended:
    return one(Append(path, content_type, data))


def read(path: str, position: int = 0, page: int = 7, cache: Any = None) -> bytes:
    """Read a stream to its tail, page by page."""
    cache = cache if cache is not None else SegmentCache(0)
    data = b""
    while True:
        info = log_reader.find([path], "default")[path]
        if isinstance(info, DurableStreamsError):
            raise info
        request = log_reader.PageRequest(info, position, page)
        segment = log_reader.pages([request], cache, "default")[info.id, position] if position < info.tail else None
        if segment is None:
            assert position == info.tail
            return data
        assert segment.start <= position < segment.end
        data += segment.data[position - segment.start :] if not data else segment.data
        position = segment.end


def clean_up() -> None:
    """Do everything that is done in the background, to its end."""
    removal.expire("default")
    while removal.collect("default"):
        pass
    while removal.purge("default"):
        pass


@dataclass
class Model:
    """What a stream should be."""

    content_type: str
    data: bytes = b""
    ends: list[int] = field(default_factory=list)
    closed: bool = False
    gone: bool = False
    source: str | None = None
    handed_out: set[int] = field(default_factory=lambda: {0})

    def add(self, part: bytes) -> None:
        self.data += part
        self.ends.append(len(self.data))
        self.handed_out.add(len(self.data))


class World:
    """The model of all streams, and the operations on it and on the store alike."""

    def __init__(self) -> None:
        self.streams: dict[str, Model] = {}
        self.count = 0
        self.cache = SegmentCache(1 << 20)

    def living(self) -> list[str]:
        return [path for path, model in self.streams.items() if not model.gone]

    def step(self, kind: str, pick: int, extra: int, payload: int) -> None:
        living = self.living()
        if kind == "create" or not living:
            self.create(JSON if extra % 2 else TEXT)
            return
        getattr(self, kind)(living[pick % len(living)], extra, payload)

    def create(self, content_type: str) -> None:
        self.count += 1
        path = f"s{self.count}"
        create(path, content_type)
        self.streams[path] = Model(content_type)

    def append(self, path: str, extra: int, payload: int) -> None:
        model = self.streams[path]
        if model.content_type == JSON:
            part = b"".join(b'{"n":%d}\n' % (payload + number) for number in range(extra % 4 + 1))
        else:
            part = b"%d," % payload * (extra % 4 + 1)
        if model.closed:
            with pytest.raises(DurableStreamsError):
                append(path, part, model.content_type)
            return
        assert append(path, part, model.content_type).tail == len(model.data) + len(part)
        model.add(part)

    def close(self, path: str, extra: int, payload: int) -> None:
        one(Append(path, None, b"", close=True))
        self.streams[path].closed = True

    def fork(self, path: str, extra: int, payload: int) -> None:
        source = self.streams[path]
        anchor = sorted(source.handed_out)[extra % len(source.handed_out)]
        following = [end for end in source.ends if end > anchor]
        cut, sub_offset = anchor, 0
        if following and payload % 3 == 0:
            piece = source.data[anchor : following[0]]
            if source.content_type == JSON:
                lines = piece.splitlines(keepends=True)
                sub_offset = payload % (len(lines) + 1)
                cut = anchor + len(b"".join(lines[:sub_offset]))
            else:
                sub_offset = payload % (len(piece) + 1)
                cut = anchor + sub_offset
        self.count += 1
        name = f"s{self.count}"
        position = None if anchor == len(source.data) and payload % 2 else anchor
        assert fork(name, path, position, sub_offset).tail == cut
        self.streams[name] = Model(
            source.content_type,
            source.data[:cut],
            [end for end in source.ends if end < cut] + [cut] * (cut > 0),
            source=path,
            handed_out={offset for offset in source.handed_out if offset <= cut} | {cut},
        )

    def delete(self, path: str, extra: int, payload: int) -> None:
        one(Delete(path))
        self.streams[path].gone = True

    def expire(self, path: str, extra: int, payload: int) -> None:
        Stream.objects.filter(path=path).unguarded().update(deadline=timezone.now() - timedelta(seconds=1))
        self.streams[path].gone = True
        if payload % 2:
            removal.expire("default")

    def tidy(self, path: str, extra: int, payload: int) -> None:
        clean_up()
        compaction.compact("default", Stream.objects.values_list("id", flat=True))

    def check(self, page: int) -> None:
        for path in self.living():
            model = self.streams[path]
            for cache in (self.cache, None):
                for offset in model.handed_out:
                    assert read(path, offset, page, cache) == model.data[offset:], (path, offset)

    def has_living_forks(self, path: str) -> bool:
        forks = [name for name, model in self.streams.items() if model.source == path]
        return any(not self.streams[name].gone or self.has_living_forks(name) for name in forks)


STEPS = st.tuples(
    st.sampled_from(["create", "append", "append", "append", "fork", "fork", "close", "delete", "expire", "tidy"]),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 999),
)


@settings(max_examples=enough(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=5, max_size=25), st.integers(1, 60))
@pytest.mark.slow
def test_random_trees_read_back_as_the_model_says(steps: Any, page: int) -> None:
    Chunk.objects.unguarded().delete()
    Stream.objects.unguarded().update(source=None)
    Stream.objects.unguarded()._raw_delete("default")
    world = World()
    for step in steps:
        world.step(*step)
        world.check(page)
    clean_up()
    world.check(page)
    # What is left is what lives, and what only its forks keep.
    kept = {path for path, model in world.streams.items() if not model.gone or world.has_living_forks(path)}
    assert set(Stream.objects.values_list("path", flat=True)) == kept
    assert not Chunk.objects.exclude(stream__path__in=kept).exists()


def test_a_chain_of_twenty_takes_no_more_queries_than_one_of_two() -> None:
    def queries(length: int) -> int:
        create(f"c{length}-0", data=b"0;")
        for number in range(1, length):
            fork(f"c{length}-{number}", f"c{length}-{number - 1}")
            append(f"c{length}-{number}", b"%d;" % number)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            whole = read(f"c{length}-{length - 1}", page=1 << 20)
        assert whole == b"".join(b"%d;" % number for number in range(length))
        return len(captured)

    assert queries(20) == queries(2)


def test_a_fork_copies_no_data() -> None:
    create("big", data=b"x" * 100_000)
    before = Chunk.objects.count()
    fork("copy", "big")
    assert Chunk.objects.count() == before


def test_forks_share_cached_segments_of_their_source() -> None:
    create("shared", data=b"one,")
    append("shared", b"two,")
    fork("left", "shared")
    cache = SegmentCache(1 << 20)
    read("shared", page=100, cache=cache)
    info = log_reader.find(["left"], "default")["left"]
    with CaptureQueriesContext(connection) as captured:
        segment = log_reader.pages([log_reader.PageRequest(info, 0, 100)], cache, "default")[info.id, 0]  # type: ignore[arg-type, union-attr]
    assert segment.data == b"one,two,"  # type: ignore[union-attr]
    assert len(captured) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source": "nothing"}, StreamNotFound),
        ({"source": "gone"}, SourceGone),
        ({"content_type": JSON}, ContentTypeMismatch),
        ({"position": 7}, OffsetOutOfRange),
        ({"position": 0, "sub_offset": 4}, OffsetOutOfRange),
        ({"sub_offset": 1}, OffsetOutOfRange),
        ({"path": "other"}, StreamExists),
        ({"path": "gone"}, StreamExists),
    ],
)
def test_a_refused_fork_changes_nothing(options: Any, error: type[Exception]) -> None:
    create("source", data=b"abc")
    append("source", b"def")
    create("other")
    create("gone", data=b"abc")
    fork("keeper", "gone")
    one(Delete("gone"))
    before = list(Stream.objects.order_by("id").values())
    arguments = {"path": "new", "source": "source", **options}
    with pytest.raises(error):
        fork(arguments.pop("path"), arguments.pop("source"), **arguments)
    assert list(Stream.objects.order_by("id").values()) == before
    one(Delete("source"))
    assert not Stream.objects.filter(path="source").exists()  # no reference was left behind


def test_a_json_fork_is_not_cut_inside_a_message() -> None:
    create("json", JSON, b'{"a":1}\n{"b":2}\n')
    with pytest.raises(OffsetOutOfRange):
        fork("cut", "json", 3)
    assert fork("whole", "json", 8).tail == 8


def test_repeating_a_fork_confirms_it_even_when_its_source_has_grown() -> None:
    create("source", data=b"abc")
    assert fork("twin", "source").created
    append("source", b"def")
    assert not fork("twin", "source").created
    assert not fork("twin", "source", 3).created
    assert not fork("twin", "source", 0, 3).created
    with pytest.raises(StreamExists):
        fork("twin", "source", 6)
    with pytest.raises(StreamExists):
        create("twin")


def test_a_fork_in_the_batch_of_its_source_sees_earlier_operations() -> None:
    outcomes, _ = group_commit.apply(
        [
            Create("a", TEXT, data=b"1,"),
            Append("a", TEXT, b"2,"),
            Create("b", None, fork=Fork("a")),
            Append("a", TEXT, b"3,"),
            Append("b", TEXT, b"4,"),
            Delete("a"),
        ],
        "default",
    )
    assert not [outcome for outcome in outcomes if isinstance(outcome, DurableStreamsError)]
    assert read("b") == b"1,2,4,"
    assert Stream.objects.get(path="a").deleted_at is not None


@pytest.mark.parametrize("requested", [{}, {"ttl": 7}, {"expires_at": timezone.now() + timedelta(days=2)}])
@pytest.mark.parametrize("source", [{}, {"ttl": 60}, {"expires_at": timezone.now() + timedelta(days=1)}])
def test_a_fork_has_its_own_lifetime_or_its_sources(source: Any, requested: Any) -> None:
    create("source", **source)
    fork("twin", "source", **requested)
    twin = Stream.objects.get(path="twin")
    expected = requested or source
    assert (twin.ttl, twin.expires_at) == (expected.get("ttl"), expected.get("expires_at"))


def test_two_forks_that_are_deleted_at_once_leave_no_rows() -> None:
    create("root", data=b"x")
    fork("left", "root")
    fork("right", "root")
    one(Delete("root"))
    group_commit.apply([Delete("left"), Delete("right")], "default")
    clean_up()
    assert not Stream._base_manager.exists()
    assert not Chunk.objects.exists()


def test_a_long_chain_ends_with_its_last_fork() -> None:
    create("n0", data=b"x")
    for number in range(1, 60):
        fork(f"n{number}", f"n{number - 1}")
    for number in range(59):
        one(Delete(f"n{number}"))
    assert read("n59") == b"x"
    one(Delete("n59"))
    clean_up()
    assert not Stream._base_manager.exists()
