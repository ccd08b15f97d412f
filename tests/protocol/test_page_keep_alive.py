"""The event of a quiet page: scripts see it, and it moves the id where that is new."""

import pytest

from django_durable_streams.protocol import page_events
from tests.event_stream import events_of


@pytest.mark.parametrize("event_id", [None, "1764369600000000_0000000000000021"])
def test_it_has_a_name_and_no_data(event_id: str | None) -> None:
    parsed = events_of(b"retry:2000\n\n" + page_events.encode_keep_alive(event_id))
    (event,) = parsed.keep_alives
    assert (event.kind, event.data, event.last_id, parsed.events) == ("keep-alive", "", event_id or "", [])


@pytest.mark.parametrize(("seconds", "told"), [(0.5, []), (2, []), (29.9, []), (30, ["30"]), (3600, ["3600"])])
def test_scripts_are_told_of_a_long_time_until_the_browser_comes_back(seconds: float, told: list[str]) -> None:
    block = page_events.encode_retry(seconds)
    assert block.startswith(b"retry:%d\n\n" % (seconds * 1000))
    parsed = events_of(block)
    assert ([event.data for event in parsed.keep_alives], parsed.events) == (told, [])
