"""The events of pages, read back by a parser of its own, and by the rules of the libraries that get them."""

import json
from typing import Any

import pytest
from hypothesis import example, given

from django_durable_streams.pages import PageEvent, datastar
from django_durable_streams.protocol import page_events
from django_durable_streams.protocol.errors import (
    InvalidParameter,
    NotAuthenticated,
    OffsetGone,
    PermissionDenied,
    ServiceUnavailable,
)
from tests.event_stream import parse
from tests.protocol.test_sse import hostile, normal


@given(hostile)
@example(" x")
@example("\n\nid:1\n\n")
@example("\ud800")
def test_a_text_comes_through_in_as_many_lines_as_it_has(data: str) -> None:
    (event,) = parse(page_events.encode(PageEvent(data, "news"), "7")).events
    expected = normal(data).encode(errors="replace").decode()
    assert (event.kind, event.data, event.last_id) == ("news", expected, "7")


def test_an_event_without_a_name_is_a_message() -> None:
    (event,) = parse(page_events.encode(PageEvent("<p>1</p>\n<p>2</p>"), "7")).events
    assert (event.kind, event.data) == ("message", "<p>1</p>\n<p>2</p>")


def test_the_id_comes_last_so_that_no_client_takes_it_without_the_data() -> None:
    assert page_events.encode(PageEvent("a\nb", "n"), "7") == b"event:n\ndata:a\ndata:b\nid:7\n\n"


@pytest.mark.parametrize("name", ["a\nb", "a\r", "\0"])
def test_a_name_cannot_forge_an_event(name: str) -> None:
    with pytest.raises(ValueError, match="line breaks"):
        PageEvent("data", name)


@pytest.mark.parametrize("name", [" end", "end ", "\tend", "\u00a0end"])
def test_a_name_cannot_become_that_of_the_last_event(name: str) -> None:
    with pytest.raises(ValueError, match="white space"):
        PageEvent("data", name)


def test_a_retry_is_in_milliseconds() -> None:
    assert page_events.encode_retry(2.5) == b"retry:2500\n\n"


def test_the_last_event_says_why_it_is_the_last() -> None:
    (closed,) = parse(page_events.encode_closed("end", "1_2")).events
    assert (closed.kind, closed.last_id) == ("end", "end")
    assert json.loads(closed.data) == {"reason": "closed", "next_offset": "1_2"}
    (refused,) = parse(page_events.encode_refusal("over", PermissionDenied("No.\nNever."))).events
    assert (refused.kind, refused.last_id) == ("over", "end")
    assert json.loads(refused.data) == {"reason": "permission-denied", "status": 403, "detail": "No.\nNever."}


def test_refusals_that_last_may_come_as_events() -> None:
    wants = page_events.wants_refusal_event
    for error in (NotAuthenticated(), PermissionDenied(), OffsetGone()):
        assert wants("event", error)
        assert not wants(None, error)
    assert not wants("event", ServiceUnavailable())
    with pytest.raises(InvalidParameter):
        wants("events", PermissionDenied())


def as_datastar(event: PageEvent) -> dict[str, str]:
    """Read an event as Datastar does: each line is a key and a value."""
    (received,) = parse(page_events.encode(event, "1")).events
    assert received.kind == event.name
    fields: dict[str, list[str]] = {}
    for line in received.data.split("\n"):
        space = line.index(" ")
        fields.setdefault(line[:space], []).append(line[space + 1 :])
    return {name: "\n".join(lines) for name, lines in fields.items()}


@given(hostile.filter(bool))
@example("<p>\n\nmode remove\n</p>")
def test_datastar_gets_elements_as_they_are(html: str) -> None:
    event = datastar.patch_elements(html, selector="#a b", mode="append", view_transition=True)
    assert event.name == "datastar-patch-elements"
    assert as_datastar(event) == {
        "mode": "append",
        "selector": "#a b",
        "useViewTransition": "true",
        "elements": normal(html),
    }
    assert as_datastar(datastar.patch_elements(html)) == {"elements": normal(html)}


def test_datastar_removes_elements_without_html() -> None:
    assert as_datastar(datastar.patch_elements(selector="#a", mode="remove")) == {"mode": "remove", "selector": "#a"}


@pytest.mark.parametrize(
    "options",
    [{"mode": "morph"}, {"mode": "append"}, {"selector": "a\nelements <script>"}, {"selector": "a\rb"}],
)
def test_datastar_refuses_what_it_would_misunderstand(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mode|selector"):
        datastar.patch_elements("<p>", **options)


def test_datastar_gets_signals() -> None:
    event = datastar.patch_signals({"a": "x\ny"}, only_if_missing=True)
    assert event.name == "datastar-patch-signals"
    assert as_datastar(event) == {"onlyIfMissing": "true", "signals": '{"a": "x\\ny"}'}
    assert as_datastar(datastar.patch_signals("{a:\n1}")) == {"signals": "{a:\n1}"}
