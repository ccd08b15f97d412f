"""A stream's page: its facts, and its messages some at a time, however many there are."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.test import Client
from django.utils import timezone

from django_durable_streams.admin import detail_views
from django_durable_streams.models import Producer, Stream
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.read import log_reader
from tests.admin.pages import client_of, staff, url

pytestmark = pytest.mark.django_db

KIB = 1024


@pytest.fixture
def log() -> Stream:
    stream = Stream.objects.create(path="log", content_type="text/plain")
    stream.append_many((f"line {number}\n" for number in range(120)), batch_bytes=1)
    return stream


def shown(client: Client, stream: Stream, **query: str) -> list[str]:
    """The messages on a page."""
    response = client.get(url("change", stream), query)
    assert response.status_code == 200
    return [message.text.strip() for message in response.context["page"].messages]


def text(client: Client, stream: Stream, **query: str) -> str:
    return client.get(url("change", stream), query).content.decode()


def test_a_page_leads_to_the_source_and_to_the_forks(admin_client: Client) -> None:
    source = Stream.objects.create(path="chat/42", content_type="text/plain", data="hello")
    middle = source.fork("chat/42-b")
    last = middle.fork("chat/42-c")
    page = text(admin_client, middle)
    assert f'href="{url("change", source)}">chat/42<' in page
    assert f'href="{url("change", last)}">chat/42-c<' in page
    assert shown(admin_client, last) == ["hello"]


def test_the_latest_messages_come_first_and_pages_lead_everywhere(admin_client: Client, log: Stream) -> None:
    lines = [f"line {number}" for number in range(120)]
    assert shown(admin_client, log) == lines[-50:]
    page = text(admin_client, log)
    (earlier,) = re.findall(r'href="\?to=(\d+)"', page)
    assert shown(admin_client, log, to=earlier) == lines[20:70]
    assert shown(admin_client, log, **{"from": "-1"}) == lines[:50]
    (later,) = set(re.findall(r'href="\?from=(\d+)"', text(admin_client, log, **{"from": "-1"})))
    assert shown(admin_client, log, **{"from": later}) == lines[50:100]
    # The tail follows where the page ends with the stream.
    assert 'id="ds-live"' in page
    assert 'id="ds-live"' not in text(admin_client, log, to=earlier)


def test_an_offset_of_the_protocol_leads_to_what_follows_it(admin_client: Client, log: Stream) -> None:
    assert shown(admin_client, log, **{"from": log.offset_at(7)})[0] == "line 1"
    assert shown(admin_client, log, **{"from": "now"})[-1] == "line 119"
    for nonsense in ("x", "9999999999999999_9999999999999999", "1_2", "-2", "1" * 17, "١"):
        assert admin_client.get(url("change", log), {"from": nonsense}).status_code == 404


def test_messages_are_shown_by_their_kind_and_escaped(admin_client: Client) -> None:
    json = Stream.objects.create(path="json", content_type="application/json", data={"a": "<script>alert(1)</script>"})
    page = text(admin_client, json)
    assert "{&quot;a&quot;: &quot;&lt;script&gt;" in page
    assert "<script>alert" not in page
    binary = Stream.objects.create(path="<b>binary</b>", content_type="image/png", data=b"\x89PNG")
    page = text(admin_client, binary)
    assert "89 50 4e 47" in page
    assert "<b>binary</b>" not in page


def test_a_large_message_is_shown_in_part_and_whole_elsewhere(admin_client: Client) -> None:
    whole = "x" * 10 * KIB + "THE END"
    stream = Stream.objects.create(path="large", content_type="text/plain", data="first")
    stream.append(whole)
    page = text(admin_client, stream)
    assert "THE END" not in page
    (link,) = re.findall(rf'href="({url("message", stream)}\?from=5)"', page)
    assert "THE END" in admin_client.get(link).content.decode()
    response = admin_client.get(url("download", stream), {"from": "5"})
    assert response.content.decode() == whole


def test_a_download_is_never_displayed(admin_client: Client) -> None:
    html = Stream.objects.create(path='a";b', content_type="text/html", data="<script>alert(1)</script>")
    response = admin_client.get(url("download", html), {"from": "0"})
    assert response["Content-Type"] == "application/octet-stream"
    assert re.fullmatch(r'attachment; filename="stream-\d+-25\.txt"', response["Content-Disposition"])
    assert response["X-Content-Type-Options"] == "nosniff"


def test_what_is_no_message_is_not_found(admin_client: Client, log: Stream) -> None:
    for name in ("message", "download"):
        for offset in (str(log.tail_position), "x", ""):
            assert admin_client.get(url(name, log), {"from": offset}).status_code == 404


def test_a_page_of_a_large_stream_reads_and_shows_a_bounded_part(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    stream = Stream.objects.create(path="big", content_type="text/plain")
    for _ in range(60):
        stream.append("y" * 100 * KIB)
    read: list[int] = []
    original = log_reader._runs

    def measured(rows: Mapping[int, Segment]) -> Any:
        read.append(sum(len(segment.data) for segment in rows.values()))
        return original(rows)

    with mock.patch.object(log_reader, "_runs", measured), django_assert_max_num_queries(20):
        page = text(admin_client, stream)
    assert sum(read) <= detail_views.PAGE_BYTES + 2 * 100 * KIB
    assert len(page) < 60 * KIB


def test_json_of_one_append_has_pages_too(admin_client: Client) -> None:
    stream = Stream.objects.create(path="json", content_type="application/json")
    stream.append_many({"n": number} for number in range(130))
    assert shown(admin_client, stream)[-1] == '{"n": 129}'
    (earlier,) = re.findall(r'href="\?to=(\d+)"', text(admin_client, stream))
    assert shown(admin_client, stream, to=earlier)[-1] == '{"n": 79}'


def test_a_stream_that_cannot_be_read_says_why(admin_client: Client) -> None:
    kept = Stream.objects.create(path="kept", content_type="text/plain", data="private")
    kept.fork("fork")
    kept.delete()
    page = text(admin_client, kept)
    assert "Its data is kept for the forks" in page
    old = Stream.objects.create(path="old", content_type="text/plain", data="private", ttl=60)
    Stream.objects.filter(pk=old.pk).unguarded().update(deadline=timezone.now() - timedelta(seconds=1))
    assert "has expired" in text(admin_client, old)
    for stream in (kept, old):
        page = text(admin_client, stream)
        assert "private" not in page
        assert 'id="ds-append"' not in page
        assert admin_client.get(url("download", stream), {"from": "0"}).status_code == 404


def test_empty_streams_say_what_to_do(admin_client: Client) -> None:
    stream = Stream.objects.create(path="empty", content_type="text/plain")
    assert "Append a first message below" in text(admin_client, stream)
    stream.close()
    assert "closed without a message" in text(admin_client, stream)


def test_producers_are_listed_some_at_a_time(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream.objects.create(path="p", content_type="text/plain")
    for number in range(25):
        stream.append("x", producer=(f"worker {number:02}&<", 3, 0) if number else ("a/b?c", 0, 0))
    page = text(admin_client, stream)
    assert page.count("worker ") == detail_views.MAX_ROWS_LISTED - 1
    assert "worker 01&amp;&lt;" in page
    monkeypatch.setattr(detail_views, "PRODUCERS_PER_PAGE", 10)
    producer_ids: list[str] = []
    query: dict[str, str] = {}
    while True:
        response = admin_client.get(url("producers", stream), query)
        producer_ids += [producer.producer_id for producer in response.context["producers"]]
        after = response.context["next_after"]
        if after is None:
            break
        (link,) = re.findall(r'href="\?after=([^"]+)"', response.content.decode())
        assert len(response.context["producers"]) == 10
        query = {"after": after}
    assert producer_ids == list(Producer.objects.order_by("producer_id").values_list("producer_id", flat=True))
    assert len(producer_ids) == 25
    assert link


def test_looking_changes_nothing(admin_client: Client) -> None:
    stream = Stream.objects.create(path="ttl", content_type="text/plain", data="x", ttl=60)
    soon = timezone.now() + timedelta(seconds=5)
    Stream.objects.filter(pk=stream.pk).unguarded().update(deadline=soon)
    text(admin_client, stream)
    assert Stream.objects.get(pk=stream.pk).deadline == soon
    assert admin_client.post(url("change", stream), {"path": "other"}).status_code == 405


def test_a_stream_that_has_gone_leads_back_to_the_list(admin_client: Client) -> None:
    stream = Stream.objects.create(path="gone")
    stream.delete()
    for name in ("change", "append", "fork", "close", "message", "download", "producers"):
        response = admin_client.get(url(name, stream))
        assert (response.status_code, response["Location"]) == (302, url("changelist"))


def test_the_history_of_a_stream_is_djangos(admin_client: Client, log: Stream) -> None:
    assert admin_client.get(url("history", log)).status_code == 200


def test_who_may_only_view_is_offered_nothing_else(log: Stream) -> None:
    page = text(client_of(staff("view")), log)
    assert "line 119" in page
    for name in ("append", "close", "fork", "delete"):
        assert url(name, log) not in page


def test_the_page_has_no_inline_code_or_style(admin_client: Client, log: Stream) -> None:
    for name in ("change", "fork", "close", "message"):
        page = admin_client.get(url(name, log), {"from": "0"}).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=", page), name
