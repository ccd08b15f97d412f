"""The rules for one stream, and the order in which they are applied. No database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_durable_streams.protocol.errors import (
    ContentTypeMismatch,
    DurableStreamsError,
    InvalidEpoch,
    InvalidJSON,
    ProducerFenced,
    ProducerSequenceGap,
    SequenceConflict,
    StreamClosed,
    StreamExists,
)
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.write.stream_creation import confirm, new_stream
from django_durable_streams.store.write.stream_state import StreamState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = "text/plain"


def stream(**fields: Any) -> StreamState:
    return StreamState(StreamInfo(1, "s", TEXT, **fields))


def append(state: StreamState, data: bytes = b"x", content_type: str | None = TEXT, **options: Any) -> Appended:
    claim = options.pop("producer", None)
    producer = ProducerClaim(*claim) if claim else None
    return state.append(Append("s", content_type, data, producer=producer, **options), NOW)


def snapshot(state: StreamState) -> tuple[Any, ...]:
    return (
        state.tail,
        state.closed,
        state.closed_by,
        state.last_seq,
        dict(state.producers),
        dict(state.changed_producers),
        list(state.appends),
        list(state.ends),
        state.deadline,
        state.changed,
    )


def refused(
    state: StreamState, kind: type[DurableStreamsError], *arguments: Any, **options: Any
) -> DurableStreamsError:
    """Append, and see that it is refused and has changed nothing."""
    before = snapshot(state)
    with pytest.raises(kind) as refusal:
        append(state, *arguments, **options)
    assert type(refusal.value) is kind
    assert snapshot(state) == before
    return refusal.value


def test_an_append_moves_the_tail() -> None:
    state = stream(tail=5)
    assert append(state, b"abc") == Appended(8, False)
    assert (state.appends, state.ends) == ([b"abc"], [8])


def test_closure_is_checked_before_everything_else() -> None:
    state = stream(tail=5, closed=True, last_seq="9")
    defect = InvalidJSON("no")
    error = refused(state, StreamClosed, b"x", "a/b", seq="1", producer=("p", 0, 7), defect=defect)
    assert (b"stream-closed", b"true") in error.headers
    assert (b"stream-next-offset", b"0000000000000000_0000000000000005") in error.headers


def test_the_content_type_is_checked_before_the_body_the_producer_and_the_sequence() -> None:
    state = stream(last_seq="9")
    refused(state, ContentTypeMismatch, b"x", "a/b", seq="1", producer=("p", 0, 7), defect=InvalidJSON("no"))


def test_the_body_is_checked_before_the_producer_and_the_sequence() -> None:
    state = stream(last_seq="9")
    refused(state, InvalidJSON, b"", TEXT, seq="1", producer=("p", 0, 7), defect=InvalidJSON("no"))


def test_the_producer_is_checked_before_the_sequence() -> None:
    state = stream(last_seq="9")
    refused(state, ProducerSequenceGap, seq="1", producer=("p", 0, 7))


def test_a_duplicate_is_recognised_before_the_sequence_is_checked() -> None:
    state = stream()
    append(state, b"a", seq="1", producer=("p", 0, 0))
    append(state, b"b", seq="2", producer=("p", 0, 1))
    before = snapshot(state)
    assert append(state, b"a", seq="1", producer=("p", 0, 0)) == Appended(2, False, True, 0, 1)
    assert snapshot(state) == before


def test_a_sequence_regression_leaves_the_producer_where_it_was() -> None:
    state = stream(last_seq="5")
    refused(state, SequenceConflict, seq="5", producer=("p", 0, 0))
    assert append(state, seq="6", producer=("p", 0, 0)).producer_seq == 0


def test_a_refused_producer_leaves_the_sequence_where_it_was() -> None:
    state = stream()
    append(state, seq="5", producer=("p", 3, 0))
    refused(state, ProducerSequenceGap, seq="6", producer=("p", 3, 2))
    refused(state, ProducerFenced, seq="6", producer=("p", 2, 0))
    refused(state, InvalidEpoch, seq="6", producer=("p", 4, 1))
    assert state.last_seq == "5"


@pytest.mark.parametrize(
    ("last", "lower"), [("2", "10"), ("b", "a"), ("a", "a"), ("a", "A"), ("\xe9", "z"), ("aa", "a")]
)
def test_sequences_compare_byte_by_byte(last: str, lower: str) -> None:
    state = stream(last_seq=last)
    refused(state, SequenceConflict, seq=lower)


def test_closing_again_succeeds_and_a_body_with_it_does_not() -> None:
    state = stream(tail=3, closed=True)
    assert append(state, b"", None, close=True) == Appended(3, True)
    refused(state, StreamClosed, b"x", close=True)
    refused(state, StreamClosed, b"", close=True, defect=InvalidJSON("no"))


def test_an_append_and_close_is_one_step() -> None:
    state = stream()
    assert append(state, b"end", close=True) == Appended(3, True)
    assert state.commit().closed
    assert state.commit().data() == b"end"


def test_only_the_request_that_closed_a_stream_is_its_duplicate() -> None:
    state = stream()
    append(state, b"a", producer=("p", 0, 0))
    append(state, b"b", close=True, producer=("p", 0, 1))
    assert append(state, b"b", close=True, producer=("p", 0, 1)) == Appended(2, True, True, 0, 1)
    assert append(state, b"b", producer=("p", 0, 1)).duplicate
    refused(state, StreamClosed, b"a", producer=("p", 0, 0))
    refused(state, StreamClosed, b"b", close=True, producer=("q", 0, 1))
    refused(state, StreamClosed, b"", None, close=True, producer=("p", 0, 2))


def test_ids_and_numbers_are_not_confused_in_what_closed_a_stream() -> None:
    state = stream()
    append(state, b"", None, close=True, producer=("1:x", 0, 0))
    refused(state, StreamClosed, b"", None, close=True, producer=("x", 0, 0))
    refused(state, StreamClosed, b"", None, close=True, producer=("0:1:x", 0, 0))


def test_a_stream_that_nobody_claims_to_have_closed_has_no_duplicate() -> None:
    state = stream(closed=True)
    refused(state, StreamClosed, b"", None, close=True, producer=("p", 0, 0))


def test_a_close_ignores_the_content_type() -> None:
    assert append(stream(), b"", "a/b", close=True).closed


def test_an_append_renews_the_ttl_and_a_refused_one_does_not() -> None:
    state = stream(ttl=60, deadline=NOW + timedelta(seconds=1), last_seq="5")
    refused(state, SequenceConflict, seq="1")
    append(state)
    assert state.deadline is not None
    assert state.deadline >= NOW + timedelta(seconds=60)


def test_a_touch_writes_only_if_the_stream_would_end_before_its_ttl() -> None:
    state = stream(ttl=60, deadline=NOW + timedelta(seconds=60))
    state.touch(NOW)
    assert not state.changed
    state.touch(NOW + timedelta(seconds=1))
    assert state.changed
    assert state.deadline is not None
    assert state.deadline >= NOW + timedelta(seconds=61)


@pytest.mark.parametrize(
    "same",
    [Create("s", TEXT), Create("s", "Text/Plain; charset=utf-8"), Create("s", TEXT, data=b"x"),
     Create("s", TEXT, defect=InvalidJSON("no"))],
)  # fmt: skip
def test_a_repeated_create_is_confirmed_with_any_body(same: Create) -> None:
    state = stream(tail=7)
    assert not confirm(state, same).created
    assert state.tail == 7


@pytest.mark.parametrize(
    "other",
    [
        Create("s", "a/b"),
        Create("s", None),
        Create("s", TEXT, ttl=60),
        Create("s", TEXT, expires_at=NOW),
        Create("s", TEXT, closed=True),
    ],
)
def test_a_create_with_another_configuration_is_a_conflict(other: Create) -> None:
    with pytest.raises(StreamExists):
        confirm(stream(), other)


def test_a_conflict_with_a_closed_stream_says_that_it_is_closed() -> None:
    with pytest.raises(StreamExists) as conflict:
        confirm(stream(closed=True), Create("s", TEXT))
    assert (b"stream-closed", b"true") in conflict.value.headers


def test_a_stream_can_be_created_closed_with_its_only_content() -> None:
    state = new_stream(Create("s", TEXT, closed=True, data=b"all"), NOW)
    assert (state.closed, state.tail, state.ends) == (True, 3, [3])
    refused(state, StreamClosed, b"x")


def test_a_defect_of_the_initial_content_creates_no_stream() -> None:
    with pytest.raises(InvalidJSON):
        new_stream(Create("s", "application/json", defect=InvalidJSON("no")), NOW)
