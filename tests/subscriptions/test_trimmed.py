"""Subscriptions and consumers whose cursors are behind a trim."""

import logging

import pytest

from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.protocol.errors import OffsetTrimmed
from django_durable_streams.protocol.offsets import Offset, decode
from django_durable_streams.store.read import log_reader
from django_durable_streams.subscriptions import leases
from django_durable_streams.subscriptions.consumers.reading import StreamReader
from django_durable_streams.subscriptions.consumers.replaying import position_of
from tests.subscriptions.steps import USING, acked, one_wake, request, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


def test_a_stream_that_was_trimmed_to_its_tail_has_nothing_pending() -> None:
    subscribe()
    log = stream()
    wake = one_wake()
    log.append("y")
    log.trim("now")
    assert leases.callback("s", wake.token, request(wake), USING) is False
    assert wakes() == []
    log.append("z")
    (link,) = one_wake().pending
    assert link.acked_offset == "-1"


def test_a_new_append_after_a_trim_is_pending_and_a_trimmed_offset_can_be_acknowledged() -> None:
    subscribe()
    log = stream(data=b"abc")
    wake = one_wake()
    log.append("def")
    log.trim("now")
    log.append("ghi")
    assert leases.callback("s", wake.token, request(wake, ("events/a", log.offset_at(3))), USING) is True
    assert acked() == 3
    again = one_wake()
    assert again.pending[0].acked_offset == log.offset_at(3)
    with pytest.raises(OffsetTrimmed) as refused:
        list(log.read(again.pending[0].acked_offset))
    assert list(log.read(refused.value.first_offset)) == ["ghi"]
    done = request(again, ("events/a", log.next_offset))
    assert leases.callback("s", again.token, done, USING) is False
    assert SubscriptionLink.objects.get().acked_position == 9


def reader(log: Stream, position: int | None) -> StreamReader:
    return StreamReader(log_reader.find_ids([log.pk], USING)[log.pk], position, USING)


def test_a_reader_of_a_consumer_goes_on_after_the_trim_and_says_how_much_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = stream(data=b"abc")
    log.append("def")
    log.append("ghi")
    log.trim(log.offset_at(6))
    with caplog.at_level(logging.WARNING):
        taken = reader(log, 2).take(10)
    assert [message.raw for message in taken] == [b"ghi"]
    assert caplog.messages == [
        "Messages were trimmed before they were read: 4 bytes of events/a. Reading goes on after them."
    ]
    caplog.clear()
    for position in (None, 6):
        assert [message.raw for message in reader(log, position).take(10)] == [b"ghi"]
    assert caplog.messages == []


def test_a_trim_between_two_pages_is_passed_in_the_same_way(caplog: pytest.LogCaptureFixture) -> None:
    log = stream(data=b"abc")
    followed = reader(log, None)
    assert len(followed.take(10)) == 1
    log.append("def")
    log.append("ghi")
    log.trim(log.offset_at(6))
    followed.info = log_reader.find_ids([log.pk], USING)[log.pk]
    assert [message.raw for message in followed.take(10)] == [b"ghi"]
    assert len(caplog.messages) == 1


def test_a_replay_from_a_trimmed_offset_is_refused() -> None:
    log = stream(data=b"abc")
    log.append("def")
    log.trim(log.offset_at(3))
    info = log_reader.find_ids([log.pk], USING)[log.pk]
    early, late = decode(log.offset_at(1)), decode(log.offset_at(3))
    assert isinstance(early, Offset)
    with pytest.raises(OffsetTrimmed, match=log.offset_at(3)):
        position_of(early, info, USING)
    assert position_of(late, info, USING) == 3
