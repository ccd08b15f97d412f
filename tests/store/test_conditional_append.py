"""Appends on the condition that the tail is at an offset, decided under the lock of the stream's row."""

from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.errors import DurableStreamsError, InvalidOffset, StreamClosed, TailMismatch
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create
from django_durable_streams.store.write.batch import Outcome
from tests.store.test_row_cache import CommitterConnection, elsewhere

TEXT = "text/plain"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def committer() -> CommitterConnection:
    """A committer that has just made an append to `a`, so its row is cached, where the database can have that."""
    committer = CommitterConnection()
    committer.apply(Create("a", TEXT))
    committer.apply(Append("a", TEXT, b"x"))
    return committer


def tail_of(path: str = "a") -> Offset:
    offset = offsets.decode(Stream.objects.get(path=path).next_offset)
    assert isinstance(offset, Offset)
    return offset


def append(if_tail: Offset | None, data: bytes = b"y", **options: Any) -> Append:
    return Append("a", TEXT, data, if_tail=if_tail, **options)


def content() -> str:
    return "".join(str(message) for message in Stream.objects.get(path="a").read())


def mismatch(outcome: Outcome) -> str:
    assert isinstance(outcome, TailMismatch), outcome
    return outcome.next_offset


def test_of_several_in_one_batch_the_first_wins(committer: CommitterConnection) -> None:
    before = tail_of()
    won, lost, plain, late = committer.apply(append(before), append(before), append(None), append(before))
    assert isinstance(won, Appended)
    assert isinstance(plain, Appended)
    assert mismatch(lost) == won.offset
    assert mismatch(late) == plain.offset
    assert content() == "xyy"


def test_the_condition_is_compared_with_the_row_and_not_with_a_copy(committer: CommitterConnection) -> None:
    before = tail_of()
    elsewhere(lambda: Stream.objects.get(path="a").append("other"))
    (lost,) = committer.apply(append(before))
    assert mismatch(lost) == str(tail_of())
    (won,) = committer.apply(append(tail_of()))
    assert isinstance(won, Appended)
    assert content() == "xothery"


def test_a_batch_of_refused_appends_alone_is_refused_by_the_newest_row(committer: CommitterConnection) -> None:
    wrong = Offset(tail_of().generation, 9)
    elsewhere(lambda: Stream.objects.get(path="a").append("12345678"))  # then the tail is where it was not
    (won,) = committer.apply(append(wrong))
    assert isinstance(won, Appended)


def test_a_duplicate_is_a_duplicate_wherever_the_tail_is(committer: CommitterConnection) -> None:
    before = tail_of()
    first = append(before, producer=ProducerClaim("p", 0, 0))
    (appended,) = committer.apply(first)
    assert isinstance(appended, Appended)
    assert not appended.duplicate
    (again,) = committer.apply(first)
    assert isinstance(again, Appended)
    assert again.duplicate


def test_a_refused_append_takes_no_number_of_its_producer(committer: CommitterConnection) -> None:
    wrong = Offset(tail_of().generation, 77)
    mismatch(committer.apply(append(wrong, producer=ProducerClaim("p", 0, 0), seq="7"))[0])
    (appended,) = committer.apply(append(tail_of(), producer=ProducerClaim("p", 0, 0), seq="7"))
    assert isinstance(appended, Appended)
    assert not appended.duplicate


def test_of_many_at_once_exactly_one_wins() -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT, data="x")
    before, outcomes, together = stream.next_offset, list[str](), Barrier(4, timeout=20)

    def compete(name: str) -> None:
        mine = Stream.objects.get(path="a")
        together.wait()
        try:
            mine.append(name, if_tail=before)
            outcomes.append("won")
        except TailMismatch as error:
            outcomes.append(error.next_offset)
        connection.close()

    threads = [Thread(target=compete, args=(f"{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == sorted(["won", *[str(tail_of())] * 3])
    assert len(content()) == 2


def test_an_empty_stream_has_the_offset_of_the_start() -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    with pytest.raises(TailMismatch):
        stream.append("x", if_tail=offsets.encode(stream.generation, 1))
    with pytest.raises(TailMismatch):
        stream.append("x", if_tail=f"{stream.generation:016d}_{0:016d}")  # no server has said so
    stream.append("x", if_tail=stream.next_offset)
    assert content() == "x"


def test_the_tail_of_a_fork_has_the_offset_of_its_source() -> None:
    source = Stream.objects.create(path="source", content_type=TEXT, data="abc")
    fork = source.fork("a")
    with pytest.raises(TailMismatch):
        fork.append("x", if_tail=offsets.encode(fork.generation, 3))
    fork.append("x", if_tail=source.next_offset)
    assert content() == "abcx"


def test_an_offset_of_an_earlier_stream_at_the_path_is_no_tail() -> None:
    old = Stream.objects.create(path="a", content_type=TEXT, data="x")
    old.delete()
    Stream.objects.create(path="a", content_type=TEXT, data="x")
    with pytest.raises(DurableStreamsError) as refused:
        transactions.apply(append(offsets.decode(old.next_offset)), "default")  # type: ignore[arg-type]
    assert type(refused.value) is TailMismatch


@pytest.mark.parametrize("token", ["-1", "now", "", "*", "7", None.__class__, 5])
def test_what_is_no_offset_is_refused(token: Any) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    with pytest.raises(InvalidOffset):
        stream.append("x", if_tail=token)


def test_a_closed_stream_is_closed_whatever_the_condition(committer: CommitterConnection) -> None:
    before = tail_of()
    (closed,) = committer.apply(append(before, b"", close=True))
    assert isinstance(closed, Appended)
    assert closed.closed
    refused, again, elsewhere_closed = committer.apply(
        append(before), append(before, b"", close=True), append(Offset(before.generation, 9), b"", close=True)
    )
    assert isinstance(refused, StreamClosed)
    assert isinstance(again, Appended)
    assert mismatch(elsewhere_closed) == str(before)
    assert (b"stream-closed", b"true") in elsewhere_closed.headers  # type: ignore[union-attr]
