"""The event of a quiet page: scripts see it, and it moves the id where that is new."""

import pytest

from django_durable_streams.protocol import page_events
from tests.event_stream import events_of


@pytest.mark.parametrize("event_id", [None, "1764369600000000_0000000000000021"])
def test_it_has_a_name_and_no_data(event_id: str | None) -> None:
    parsed = events_of(b"retry:2000\n\n" + page_events.encode_keep_alive(event_id))
    (event,) = parsed.keep_alives
    assert (event.kind, event.data, event.last_id, parsed.events) == ("keep-alive", "", event_id or "", [])
