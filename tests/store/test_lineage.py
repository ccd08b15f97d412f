"""Long chains of forks: every byte as in a short one, few entries in a row, few queries for a page."""

import json
from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TransactionTestCase

from django_durable_streams.models import Stream
from django_durable_streams.store.operations import Append, Create, Delete, Fork
from django_durable_streams.store.read import browsing, lineage, log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.upkeep import compaction, removal
from django_durable_streams.store.write import group_commit
from tests.examples import enough
from tests.tokens import offset_in

TEXT = "text/plain"


def info_of(path: str) -> StreamInfo:
    info = log_reader.find([path], "default")[path]
    assert isinstance(info, StreamInfo)
    return info


def fork(path: str, source: str, position: int | None, data: bytes) -> None:
    cut = None if position is None else offset_in(source, position)
    operations = [Create(path, None, fork=Fork(source, cut)), *([Append(path, TEXT, data)] if data else [])]
    for operation in operations:
        ((outcome,), _) = group_commit.apply([operation], "default")  # type: ignore[list-item]
        assert not isinstance(outcome, Exception), outcome


def whole(path: str, page: int, cache: SegmentCache) -> bytes:
    """Read a stream page by page."""
    content, position = b"", 0
    while position < (info := info_of(path)).tail:
        segment = log_reader.pages([log_reader.PageRequest(info, position, page)], cache, "default")[info.id, position]
        assert segment is not None
        content += segment.data[position - segment.start :]
        position = segment.end
    return content


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entries in one of the next level, so that a few forks have many levels."""
    monkeypatch.setattr(lineage, "WIDTH", 2)


@pytest.mark.django_db
@pytest.mark.usefixtures("narrow")
def test_a_chain_has_a_logarithm_of_entries_and_all_bytes() -> None:
    group_commit.apply([Create("s/0", TEXT, data=b"000;")], "default")
    for number in range(1, 100):
        fork(f"s/{number}", f"s/{number - 1}", None, b"%03d;" % number)
    lengths = [len(entries or ()) for entries in Stream.objects.order_by("pk").values_list("lineage", flat=True)]
    assert max(lengths) <= 3 * 7
    cache = SegmentCache(1 << 20)
    for number in (99, 50, 3):
        expected = b"".join(b"%03d;" % piece for piece in range(number + 1))
        assert whole(f"s/{number}", 10_000, cache) == expected
        assert whole(f"s/{number}", 13, SegmentCache(0)) == expected


@pytest.mark.django_db
def test_a_chain_of_usual_length_is_a_flat_list() -> None:
    group_commit.apply([Create("s/0", TEXT, data=b"x")], "default")
    for number in range(1, 60):
        fork(f"s/{number}", f"s/{number - 1}", None, b"x")
    info = info_of("s/59")
    assert len(info.lineage or ()) == 59
    assert not lineage.has_runs(info.lineage)


@pytest.mark.django_db
@pytest.mark.slow
def test_a_long_chain_costs_a_few_queries_for_a_page_and_a_few_kilobytes_for_a_row() -> None:
    group_commit.apply([Create("s/0", TEXT, data=b"0000;")], "default")
    for number in range(1, 1100):
        fork(f"s/{number}", f"s/{number - 1}", None, b"%04d;" % number)
    sizes = [len(json.dumps(entries)) for entries in Stream.objects.values_list("lineage", flat=True)]
    assert max(sizes) < 5000
    info = info_of("s/1099")
    for number, most in [(0, 3), (500, 3), (1090, 1)]:
        request = log_reader.PageRequest(info, 5 * number, 40)
        with CaptureQueriesContext(connection) as queries:
            (segment,) = log_reader.pages([request], SegmentCache(0), "default").values()
        assert segment is not None
        assert segment.data == b"".join(b"%04d;" % piece for piece in range(number, number + 8))
        assert len(queries) <= most
    assert whole("s/1099", 1 << 20, SegmentCache(0)) == b"".join(b"%04d;" % piece for piece in range(1100))


def narrowly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage, "WIDTH", 2)
        patch.setattr(lineage, "MAX_PIECES", 5)
        patch.setattr(log_reader, "MAX_PIECES", 5)
        yield


forks = st.lists(
    st.tuples(st.integers(0, 3), st.floats(0, 1), st.binary(max_size=4), st.sampled_from(["", "", "delete", "merge"])),
    min_size=5,
    max_size=40,
)


class AnyTreeTest(TransactionTestCase):
    """However streams are forked, at whatever positions, from streams that are deleted later, too."""

    @given(forks, st.sampled_from([1, 3, 9, 1000]))
    @settings(max_examples=enough(40))
    def test_any_tree(self, steps: list[tuple[int, float, bytes, str]], page: int) -> None:
        for _ in narrowly():
            group_commit.apply([Create("s/0", TEXT, data=b"begin")], "default")
            expected = [b"begin"]
            deleted: set[int] = set()
            for number, (back, part, data, extra) in enumerate(steps, 1):
                source = max(number - 1 - back, 0)
                while source in deleted:
                    source -= 1
                cut = round(part * len(expected[source])) if back else len(expected[source])
                fork(f"s/{number}", f"s/{source}", cut, data)
                expected.append(expected[source][:cut] + data)
                if extra == "delete" and source:
                    group_commit.apply([Delete(f"s/{source}")], "default")
                    deleted.add(source)
                elif extra == "merge":
                    compaction.compact("default", list(Stream.objects.values_list("pk", flat=True)))
            cache = SegmentCache(1 << 20)
            for number, content in enumerate(expected):
                if number not in deleted:
                    path = f"s/{number}"
                    assert whole(path, page, cache) == content
                    info = info_of(path)
                    assert not info.lineage or info.lineage[-1][3] >= 0  # the end is read without a look
                    for position in range(len(content) + 1):
                        messages = browsing.before(info, position, limit=3, count=50, using="default")
                        assert (
                            b"".join(message.data for message in messages)
                            == content[:position][
                                messages[0].start if messages else position : messages[-1].end if messages else position
                            ]
                        )
            for number in range(len(expected)):
                group_commit.apply([Delete(f"s/{number}")], "default")
            while removal.collect("default"):
                pass
            while removal.purge("default"):
                pass
            assert not Stream._base_manager.exists()
