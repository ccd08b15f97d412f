"""Listing: pages of streams in the order of their paths."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams import clock
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import InvalidParameter, InvalidPath
from django_durable_streams.protocol.listings import ListingQuery, cursor_of_path, end_of_prefix, path_of_cursor
from django_durable_streams.store.operations import Create
from django_durable_streams.store.read import listing
from django_durable_streams.store.write import group_commit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@pytest.fixture(autouse=True)
def _database(db: None) -> None:
    pass


def create(*paths: str) -> None:
    group_commit.apply([Create(path, "text/plain") for path in paths], "default")


def paths(**options: object) -> list[str]:
    query = ListingQuery.of(**options)  # type: ignore[arg-type]
    pages = [*listing.pages(query, "default")]
    keys = [key for some in listing.keys(query, "default") for key in some]
    assert keys == [(values[0], values[-1]) for page in pages for values in page]
    return [key.path for key in keys]


@given(TEXT, TEXT)
def test_the_end_of_a_prefix_separates_what_begins_with_it(prefix: str, text: str) -> None:
    end = end_of_prefix(prefix)
    is_in_range = prefix <= text and (end is None or text < end)
    assert is_in_range == text.startswith(prefix)


@given(TEXT.filter(bool))
def test_a_cursor_is_read_back(path: str) -> None:
    cursor = cursor_of_path(path)
    try:
        assert path_of_cursor(cursor) == path
    except InvalidParameter:
        assert any(character < " " or character in "\x7f\\\ufffd" for character in path)


@pytest.mark.parametrize("cursor", ["a", "=", "!!!!", "YQ==", "YR", "\u00e4", "x" * 4000, "_____w"])
def test_an_invented_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="cursor"):
        ListingQuery.of(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 1.0, "5", None])
def test_a_limit_is_a_whole_number_within_bounds(limit: object) -> None:
    with pytest.raises(InvalidParameter, match="limit"):
        Stream.objects.listing(limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["\x00", "a\\", "x" * 513, "\ud800", None])
def test_a_prefix_that_no_path_has_is_refused(prefix: object) -> None:
    with pytest.raises(InvalidParameter, match="prefix"):
        Stream.objects.listing(prefix)  # type: ignore[arg-type]


def test_a_pattern_that_no_path_matches_is_refused() -> None:
    with pytest.raises(InvalidPath):
        Stream.objects.listing(pattern="a*")


def test_a_prefix_is_compared_exactly() -> None:
    names = ["chat", "chat/1", "chat/2", "Chat/3", "chat0", "cha_/1", "ch%t/1", "\u00e9/1", "e\u0301/1", "\U0001f600/1"]
    create(*names)
    assert paths() == sorted(names)
    for prefix in ("chat", "chat/", "Chat", "cha_", "ch%", "\u00e9", "e", "\U0001f600", "nothing"):
        assert paths(prefix=prefix) == sorted(name for name in names if name.startswith(prefix))


def test_pages_of_any_size_have_each_stream_once() -> None:
    names = sorted(f"a/{number}" for number in range(23))
    create(*names, "b", "A")
    for limit in (1, 2, 7, 23, 24, 100):
        assert paths(prefix="a/", limit=limit) == names
    page = Stream.objects.listing("a/", limit=23)
    assert page.cursor is None
    assert Stream.objects.listing("a/", limit=22).cursor is not None


def test_what_is_created_and_deleted_between_pages_moves_no_other_stream() -> None:
    create("a", "c", "e", "g")
    first = Stream.objects.listing(limit=2)
    assert [stream.path for stream in first.streams] == ["a", "c"]
    Stream.objects.filter(path__in=["c", "e"]).delete()
    create("b", "f")
    assert first.cursor is not None
    second = Stream.objects.listing(cursor=first.cursor, limit=10)
    assert [stream.path for stream in second.streams] == ["f", "g"]


def test_a_rare_pattern_takes_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    create(*(f"a/{number:02}/x" for number in range(40)), "a/39/y", "b/1/y")
    monkeypatch.setattr(listing, "MAX_LIMIT", 10)
    monkeypatch.setattr(listing, "MAX_EXAMINED", 20)
    assert paths(pattern="*/*/y") == ["a/39/y", "b/1/y"]
    first = Stream.objects.listing(pattern="*/*/y")
    assert (list(first.streams), first.cursor is not None) == ([], True)
    assert paths(pattern="a/*/y", prefix="a/3") == ["a/39/y"]
    assert paths(pattern="a/*/y", prefix="b") == []


def test_a_stream_that_cannot_be_read_is_not_listed() -> None:
    create("alive", "deleted", "kept", "expired")
    Stream.objects.get(path="kept").fork("fork")
    Stream.objects.filter(path__in=["deleted", "kept"]).delete()
    Stream.objects.unguarded().filter(path="expired").update(deadline=clock.now() - timedelta(seconds=1))
    assert paths() == ["alive", "fork"]


def test_a_listed_stream_has_its_state() -> None:
    expires_at = timezone.now() + timedelta(hours=1)
    stream = Stream.objects.create(path="a", content_type="application/json", expires_at=expires_at, data={"n": 1})
    empty = Stream.objects.create(path="b", ttl=60)
    stream.fork("c")
    fork = stream.fork("d")
    fork.append({"n": 2})
    stream.close()
    row, other, bare, grown = Stream.objects.listing().streams
    assert (row.content_type, row.size, row.closed, row.ttl) == ("application/json", 8, True, None)
    assert row.next_offset == Stream.objects.get(path="a").next_offset
    assert row.expires_at == stream.expires_at
    assert row.expires_at is not None
    assert row.expires_at.tzinfo is UTC
    assert row.created_at <= timezone.now()
    assert row.appended_at is not None
    assert (other.ttl, other.appended_at, other.next_offset) == (60, None, empty.next_offset)
    assert bare.next_offset == row.next_offset
    assert grown.next_offset == Stream.objects.get(path="d").next_offset


def test_the_tail_of_a_bare_fork_of_many_generations_is_found() -> None:
    stream = Stream.objects.create(path="0", content_type="text/plain")
    for number in range(1, 70):
        stream.append("x")
        stream = stream.fork(str(number))
    row = Stream.objects.listing(prefix="69").streams[0]
    assert row.next_offset == Stream.objects.get(path="69").next_offset


def test_the_number_of_queries_does_not_depend_on_the_number_of_streams() -> None:
    create(*(f"a/{number}" for number in range(300)))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert len(Stream.objects.listing(limit=250).streams) == 250
    assert len(queries) == 1


def test_a_page_is_found_by_the_index_of_the_paths() -> None:
    create(*(f"a/{number}" for number in range(3)))
    with CaptureQueriesContext(connection) as queries:
        listing.page(ListingQuery.of("a/", cursor=cursor_of_path("a/1")), "default")
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {queries[0]['sql']}")
            plan = str(cursor.fetchall())
            assert "USING INDEX" in plan
            assert "path>" in plan
            assert "TEMP B-TREE" not in plan
        elif connection.vendor == "postgresql":
            # A table of three rows is read as a whole. Only the condition of the index can be seen.
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute(f"EXPLAIN {queries[0]['sql']}")
            plan = str(cursor.fetchall())
            assert "Index Cond" in plan
            assert "Sort" not in plan


def test_the_streams_of_a_listing_are_those_that_are_alive() -> None:
    create("a/1", "a/2", "a/3", "a/4", "b", "\U0010ffff/a")
    with patch.object(clock, "now", lambda: datetime.now(UTC) - timedelta(hours=2)):
        group_commit.apply([Create("a/5", "text/plain", ttl=60), Create("a/6", "text/plain", ttl=9000)], "default")
    Stream.objects.get(path="a/2").delete()
    Stream.objects.get(path="a/3").fork("a/7")
    Stream.objects.get(path="a/3").delete()
    for prefix in ("", "a", "a/", "a/4", "b", "c", "\U0010ffff"):
        for after in ("", "a/1", "a/9"):
            query = ListingQuery(prefix=prefix, after=after)
            alive = Stream.objects.alive().with_prefix(prefix).filter(path__gt=after).order_by("path")
            expected = [*alive.values_list("path", flat=True)]
            assert [stream.path for stream in listing.page(query, "default").streams] == expected
    assert paths() == ["a/1", "a/4", "a/6", "a/7", "b", "\U0010ffff/a"]


@pytest.mark.parametrize("setting", [{}, {"USE_TZ": False}, {"TIME_ZONE": "Asia/Kathmandu"}])
@pytest.mark.parametrize("microsecond", [0, 1, 500_000])
def test_times_are_in_utc_whatever_the_time_zone_of_the_project(setting: dict[str, Any], microsecond: int) -> None:
    with override_settings(**{"TIME_ZONE": "America/New_York", **setting}) if setting else nullcontext():
        moment = datetime(2026, 1, 2, 3, 4, 5, microsecond, tzinfo=UTC)
        with (
            patch.object(clock, "now", lambda: moment),
            patch.object(timezone, "now", lambda: clock.to_project(moment)),
        ):
            create("a")
            Stream.objects.get(path="a").append("x")
        row = Stream.objects.listing().streams[0]
        stream = Stream.objects.get(path="a")
        assert stream.appended_at is not None
        assert (row.created_at, row.appended_at) == (moment, moment)
        assert clock.from_project(stream.created_at) == moment
        assert row.created_at.tzinfo is UTC
