"""The list of streams: what it shows and finds, what it must not load, and that its length does not matter."""

import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_durable_streams.admin import changelist, options
from django_durable_streams.models import Stream
from tests.admin.pages import client_of, staff, url

pytestmark = pytest.mark.django_db


def listed(client: Client, **query: str) -> set[str]:
    response = client.get(url("changelist"), query)
    assert response.status_code == 200, response
    return {stream.path for stream in response.context["cl"].result_list}


@pytest.fixture
def streams() -> None:
    now = timezone.now()
    json = Stream.objects.create(path="json", content_type="Application/JSON; charset=utf-8", data={"a": "b"})
    Stream.objects.create(path="text", content_type="text/plain", ttl=1800).close()
    Stream.objects.create(path="binary", expires_at=now + timedelta(days=3))
    json.fork("json-fork")
    Stream.objects.create(path="old", content_type="application/jsonl", ttl=60)
    Stream.objects.filter(path="old").unguarded().update(deadline=now - timedelta(seconds=1))
    kept = Stream.objects.create(path="kept", content_type="text/html", data="x")
    kept.fork("kept-fork", expires_at=now + timedelta(days=30))
    kept.delete()
    Stream.objects.create(path="removed").delete()


ALL = {"json", "text", "binary", "json-fork", "old", "kept", "kept-fork"}


def test_the_list_has_everything_that_is_not_removed(admin_client: Client, streams: None) -> None:
    assert listed(admin_client) == ALL


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "open"}, {"json", "binary", "json-fork", "kept-fork"}),
        ({"state": "closed"}, {"text"}),
        ({"state": "expired"}, {"old"}),
        ({"state": "deleted"}, {"kept"}),
        ({"kind": "json"}, {"json", "json-fork"}),
        ({"kind": "text"}, {"text", "kept", "kept-fork"}),
        ({"kind": "binary"}, {"binary", "old"}),
        ({"forks": "has"}, {"json", "kept"}),
        ({"forks": "is"}, {"json-fork", "kept-fork"}),
        ({"forks": "none"}, {"text", "binary", "old"}),
        ({"expiry": "never"}, {"json", "json-fork", "kept"}),
        ({"expiry": "hour"}, {"text"}),
        ({"expiry": "day"}, {"text"}),
        ({"expiry": "week"}, {"text", "binary"}),
        ({"expiry": "later"}, {"kept-fork"}),
        ({"appended_at__isnull": "False"}, {"json", "kept"}),
        ({"appended_at__gte": "2999-01-01 00:00:00+00:00"}, set()),
        ({"state": "open", "kind": "text"}, {"kept-fork"}),
    ],
    ids=lambda part: str(sorted(part) if isinstance(part, set) else part),
)
def test_filters(admin_client: Client, streams: None, query: dict[str, str], expected: set[str]) -> None:
    assert listed(admin_client, **query) == expected


def test_the_states_are_shown(admin_client: Client, streams: None) -> None:
    shown = admin_client.get(url("changelist")).content.decode()
    badges = re.findall(r"ds-badge-(\w+)", shown)
    assert {state: badges.count(state) for state in set(badges)} == {"open": 4, "closed": 1, "expired": 1, "deleted": 1}


def test_the_forks_of_a_stream_are_a_filter_too(admin_client: Client, streams: None) -> None:
    source = Stream.objects.get(path="json")
    assert listed(admin_client, source__id__exact=str(source.pk)) == {"json-fork"}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a/", {"a/1", "a/B", "a/b%c", "a/b c"}),
        ("a/b", {"a/b%c", "a/b c"}),
        ("a/B", {"a/B"}),
        ("a/b%", {"a/b%c"}),
        ("a/b c", {"a/b c"}),
        ("a_", set()),
        ("%", set()),
        ("é", {"é/x"}),
        ("\U0010ffff", {"\U0010ffff/x"}),
        ("\ud7ff", set()),
        ("'; --", set()),
    ],
)
def test_search_goes_by_the_beginning_of_paths_exactly(admin_client: Client, prefix: str, expected: set[str]) -> None:
    for path in ("a/1", "a/B", "a/b%c", "a/b c", "b/a/", "é/x", "\U0010ffff/x"):
        Stream.objects.create(path=path.rstrip("/"))
    assert listed(admin_client, q=prefix) == expected


def test_what_no_path_has_is_not_looked_for(admin_client: Client) -> None:
    Stream.objects.create(path="a/b")
    for term, expected in (("a%00", []), ("%00", []), ("a", ["a/b"])):
        query = f"term={term}&app_label=durable_streams&model_name=stream&field_name=source"
        answer = admin_client.get(f"{reverse('admin:autocomplete')}?{query}")
        assert [row["text"] for row in answer.json()["results"]] == expected


def test_search_uses_the_index_of_paths() -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")  # an empty table is not worth an index
    plan = changelist.beginning_with(Stream.objects.all(), "chat/").explain()
    match connection.vendor:
        case "sqlite":
            assert "USING INDEX" in plan
            assert "path>? AND path<?" in plan
        case "postgresql":
            assert "~>=~ 'chat/'" in plan
        case "mysql":
            assert " range path " in plan


def test_what_lies_behind_the_last_code_point_is_no_end() -> None:
    top = "\U0010ffff"
    assert changelist._successor("a") == "b"
    assert changelist._successor("a" + top) == "b"
    assert changelist._successor("\ud7ff") == "\ue000"
    assert changelist._successor(top + top) is None


def many(count: int) -> None:
    Stream.objects.unguarded().bulk_create(
        Stream(path=f"many/{number}", content_type="text/plain", appended_at=timezone.now()) for number in range(count)
    )


def queries(client: Client, **query: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url("changelist"), query).status_code == 200
    return [query["sql"] for query in captured]


def test_queries_do_not_grow_with_the_rows_and_select_no_data(admin_client: Client) -> None:
    stream = Stream.objects.create(path="one", content_type="text/plain", data="secret payload")
    stream.fork("one-fork")
    few = queries(admin_client)
    for number in range(20):
        stream.fork(f"fork/{number}").append("more")
    statements = queries(admin_client)
    assert len(statements) == len(few)
    about_streams = [sql for sql in statements if "durable_streams" in sql]
    assert 0 < len(about_streams) <= 5
    for sql in about_streams:
        assert "payload" not in sql
        for column in ('"data"', '"ends"', '"lineage"', "`data`", "`ends`", "`lineage`"):
            assert column not in sql, sql


def test_chunks_are_counted_for_the_page(admin_client: Client) -> None:
    stream = Stream.objects.create(path="one", content_type="text/plain", data="a")
    stream.append("b")
    stream.fork("two")
    response = admin_client.get(url("changelist"))
    counts = {stream.path: stream.chunk_count for stream in response.context["cl"].result_list}
    assert counts == {"one": 2, "two": 0}


def test_what_is_not_counted_is_said_to_be_at_least(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelist, "COUNT_LIMIT", 10)
    monkeypatch.setattr(changelist, "PAGES_AHEAD", 1)
    monkeypatch.setattr(options.StreamAdmin, "list_per_page", 5)
    many(40)
    response = admin_client.get(url("changelist"))
    assert "at least 10 streams" in response.content.decode()
    assert "Select all 10" not in response.content.decode()
    # One more with each page that is turned, to the very end.
    assert "at least 20 streams" in admin_client.get(url("changelist"), {"p": 3}).content.decode()
    assert "40 streams" in admin_client.get(url("changelist"), {"p": 8}).content.decode()
    assert listed(admin_client, p="8") == {f"many/{number}" for number in range(5)}
    for nonsense in ("0", "-1", "x", "9" * 30):
        assert admin_client.get(url("changelist"), {"p": nonsense}).status_code in (200, 302)


def test_a_hundred_thousand_streams_list_in_the_time_of_a_hundred(admin_client: Client) -> None:
    def seconds() -> float:
        """The best of some: what the machine does besides must not count."""
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            assert len(listed(admin_client)) == 100
            times.append(time.perf_counter() - begin)
        return min(times)

    many(100)
    short = seconds()
    Stream.objects.unguarded().bulk_create(
        (Stream(path=f"more/{number:06}", content_type="text/plain") for number in range(99_900)), batch_size=5000
    )
    assert seconds() < 2 * short + 0.02


def choose(client: Client, action: str, *streams: Stream, **fields: Any) -> Any:
    data = {"action": action, "_selected_action": [stream.pk for stream in streams], **fields}
    return client.post(url("changelist"), data, follow=True)


@pytest.fixture
def two() -> list[Stream]:
    return [Stream.objects.create(path=path, content_type="text/plain", data="x") for path in ("one", "two")]


def test_several_are_closed_after_asking(admin_client: Client, two: list[Stream]) -> None:
    asked = choose(admin_client, "close_selected", *two).content.decode()
    assert "Close these 2 streams?" in asked
    assert not Stream.objects.filter(closed=True).exists()
    two[0].close()
    done = choose(admin_client, "close_selected", *two, post="yes").content.decode()
    assert "1 stream was closed." in done
    assert Stream.objects.filter(closed=True).count() == 2
    assert LogEntry.objects.filter(action_flag=CHANGE).count() == 1
    assert "None of these streams is open." in choose(admin_client, "close_selected", *two).content.decode()


def test_several_are_deleted_by_the_protocols_rules(admin_client: Client, two: list[Stream]) -> None:
    fork = two[0].fork("fork")
    asked = choose(admin_client, "delete_selected", *two).content.decode()
    assert "It has a fork" in asked
    choose(admin_client, "delete_selected", *two, post="yes")
    assert list(fork.read()) == ["x"]
    assert set(Stream.objects.filter(path__isnull=False).values_list("path", flat=True)) == {"one", "fork"}
    assert LogEntry.objects.filter(action_flag=DELETION).count() == 2
    # Again, with one that is gone for all but its fork: nothing is left to do.
    assert choose(admin_client, "delete_selected", two[0], post="yes").status_code == 200


def test_the_confirmation_loads_no_chunks(
    admin_client: Client,
) -> None:
    streams = [Stream.objects.create(path=f"s/{number}", data=b"x" * 1000) for number in range(120)]
    streams[0].fork("fork")
    with CaptureQueriesContext(connection) as captured:
        shown = choose(admin_client, "delete_selected", *streams).content.decode()
    assert not [query["sql"] for query in captured if '"data"' in query["sql"] or "`data`" in query["sql"]]
    assert len(captured) < 15
    assert "… and 20 more" in shown


def test_actions_take_a_bounded_number_at_once(
    admin_client: Client, two: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelist, "MAX_ROWS_PER_ACTION", 1)
    shown = choose(admin_client, "close_selected", *two, select_across="1", post="yes").content.decode()
    assert "at most 1 streams" in shown
    assert Stream.objects.alive().filter(closed=False).count() == 2


def test_as_many_as_an_action_takes_fit_into_its_confirmation(admin_client: Client) -> None:
    many(changelist.MAX_ROWS_PER_ACTION)
    chosen = {"action": "close_selected", "select_across": "1", "_selected_action": [Stream.objects.first().pk]}  # type: ignore[union-attr]
    asked = admin_client.post(url("changelist"), chosen).content.decode()
    ids = re.findall(r'name="_selected_action" value="(\d+)"', asked)
    assert len(ids) == changelist.MAX_ROWS_PER_ACTION
    confirmed = {"action": "close_selected", "_selected_action": ids, "post": "yes"}
    done = admin_client.post(url("changelist"), confirmed, follow=True).content.decode()
    assert f"{changelist.MAX_ROWS_PER_ACTION} streams were closed." in done
    assert Stream.objects.filter(closed=True).count() == changelist.MAX_ROWS_PER_ACTION


def test_who_may_only_view_has_no_actions(two: list[Stream]) -> None:
    client = client_of(staff("view"))
    assert "close_selected" not in client.get(url("changelist")).content.decode()
    for action in ("close_selected", "delete_selected"):
        choose(client, action, *two, post="yes")
    assert Stream.objects.alive().filter(closed=False).count() == 2


def test_an_empty_list_says_what_to_do(admin_client: Client) -> None:
    assert "There are no streams yet." in admin_client.get(url("changelist")).content.decode()
    assert "No stream matches." in admin_client.get(url("changelist"), {"state": "closed"}).content.decode()
    assert "Add one here" not in client_of(staff("view")).get(url("changelist")).content.decode()
