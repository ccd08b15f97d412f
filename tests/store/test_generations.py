"""Offsets separate a stream from the next one at its path, and from its sources, in any order of events."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TransactionTestCase

from django_durable_streams.models import Stream
from django_durable_streams.protocol import offsets
from django_durable_streams.protocol.errors import DurableStreamsError, OffsetGone, OffsetOutOfRange
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.store.operations import Append, Create, Delete, Fork, Operation
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.upkeep import removal
from django_durable_streams.store.write import group_commit
from tests.store.contents import read

TEXT = "text/plain"
pytestmark = pytest.mark.django_db


def apply(*operations: Operation) -> list[Any]:
    outcomes, _ = group_commit.apply(operations, "default")
    for outcome in outcomes:
        if isinstance(outcome, DurableStreamsError):
            raise outcome
    return list(outcomes)


def info(path: str) -> StreamInfo:
    info_or_error = log_reader.find([path], "default")[path]
    assert isinstance(info_or_error, StreamInfo)
    return info_or_error


def parsed(token: str) -> Offset:
    offset = offsets.decode(token)
    assert isinstance(offset, Offset)
    return offset


def refused(path: str, token: str) -> bool:
    """Whether an offset is refused, by Python's readers as by the store."""
    stream = Stream.objects.get(path=path)
    try:
        position = info(path).locate(parsed(token))
    except OffsetGone:
        for begin in (stream.read, lambda offset: stream.tail(offset, timeout=0)):
            with pytest.raises(OffsetGone):
                list(begin(token))
        return True
    assert b"".join(message.encode() for message in stream.read(token)) == read(path, position)[0]
    return False


def delete(path: str) -> None:
    Stream.objects.get(path=path).delete()


def expire(path: str) -> None:
    Stream.objects.filter(path=path).unguarded().update(deadline=timezone.now())
    removal.expire("default")


def purge(path: str) -> None:
    delete(path)
    while removal.purge("default"):
        pass


@pytest.mark.parametrize("end", [delete, expire, purge])
@pytest.mark.parametrize("length", [1, 3, 10])
def test_offsets_of_a_stream_are_refused_by_the_next_stream_at_its_path(
    end: Callable[[str], None], length: int
) -> None:
    apply(Create("a", TEXT, data=b"abc"), Append("a", TEXT, b"def"))
    old = [info("a").token(position) for position in range(1, 7)]
    end("a")
    apply(Create("a", TEXT, data=b"x" * length))
    assert all(refused("a", token) for token in old)
    assert not refused("a", offsets.ZERO)
    assert not any(refused("a", info("a").token(position)) for position in range(length + 1))


def test_streams_that_follow_each_other_in_one_batch_have_generations_of_their_own() -> None:
    made = apply(
        Create("a", TEXT, data=b"abc"),
        Delete("a"),
        Create("a", TEXT, data=b"abc"),
        Append("a", TEXT, b"def"),
        Delete("a"),
        Create("a", TEXT, data=b"abc"),
    )
    tokens = [made[number].offset for number in (0, 2, 3, 5)]
    assert len(set(tokens)) == 4
    assert [refused("a", token) for token in tokens] == [True, True, True, False]
    Stream.objects.unguarded().update(deadline=timezone.now())
    again = apply(Create("a", TEXT, data=b"abc"))[0].offset
    assert [refused("a", token) for token in (*tokens, again)] == [True, True, True, True, False]


def test_generations_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source = apply(Create("a", TEXT, data=b"abc"))[0]
    monkeypatch.setattr(offsets.time, "time_ns", lambda: 1000)  # type: ignore[attr-defined]
    fork, _, again = apply(
        Create("b", None, data=b"d", fork=Fork("a")), Delete("b"), Create("b", None, data=b"d", fork=Fork("a"))
    )
    assert source.offset < fork.offset < again.offset
    assert refused("b", fork.offset)


def test_offsets_past_the_tail_are_refused_except_the_next() -> None:
    """Some clients ask for the byte behind what they have. That is answered as the tail is."""
    apply(Create("a", TEXT, data=b"abc"), Append("a", TEXT, b"def"))
    lost = [info("a").token(position) for position in range(7)]
    Stream.objects.unguarded().update(tail_position=3)
    assert [refused("a", token) for token in lost] == [False] * 5 + [True] * 2
    assert info("a").locate(parsed(lost[4])) == info("a").tail == 3


def test_a_fork_has_its_sources_offsets_up_to_the_cut() -> None:
    apply(Create("a", TEXT, data=b"abc"), Append("a", TEXT, b"def"))
    apply(Create("b", None, fork=Fork("a", info("a").offset(3))), Append("b", TEXT, b"DEF"), Append("a", TEXT, b"ghi"))
    apply(Create("c", None, fork=Fork("b", info("b").offset(6))), Create("d", None, fork=Fork("c")))
    apply(Append("d", TEXT, b"GHI"))
    tokens = {path: [info(path).token(position) for position in range(info(path).tail + 1)] for path in "abcd"}
    assert tokens["a"][:4] == tokens["b"][:4] == tokens["c"][:4] == tokens["d"][:4]
    assert tokens["b"][:7] == tokens["c"] == tokens["d"][:7]
    assert not {*tokens["a"][4:]} & {*tokens["b"][4:]}
    for path, own in tokens.items():
        assert all(one < other for one, other in pairwise(own))
        assert [info(path).locate(parsed(token)) for token in own] == [*range(len(own))]
        assert all(
            refused(path, token)
            for others in tokens.values()
            for token in others
            # The one behind the cut is answered as the cut.
            if token not in own and parsed(token).position != len(own) and parsed(token) != info("a").offset(4)
        )
    assert info("b").locate(info("a").offset(4)) == 3


@pytest.mark.parametrize("lost", [(1, 3), (4, 7), (10**15, 3), (0, 9)])
def test_a_fork_is_not_cut_at_another_streams_offset(lost: tuple[int, int]) -> None:
    apply(Create("a", TEXT, data=b"abc"))
    with pytest.raises(OffsetOutOfRange):
        apply(Create("b", None, fork=Fork("a", Offset(*lost))))
    with pytest.raises(OffsetOutOfRange):
        Stream.objects.get().fork("b", offset=str(Offset(*lost)))
    with pytest.raises(OffsetOutOfRange):
        apply(Create("b", None, fork=Fork("a", info("a").offset(4))))


def test_a_signal_and_a_result_say_the_offsets_that_readers_use() -> None:
    source = Stream.objects.create(path="a", content_type=TEXT, data="abc")
    fork = source.fork("b")
    assert source.next_offset == fork.next_offset == info("b").token(3)
    result = fork.append("def")
    assert result.offset == fork.next_offset == info("b").token(6)
    assert fork.close() is None
    _, commits = group_commit.apply(
        [Append("a", TEXT, b"ghi"), Create("c", None, data=b"x", fork=Fork("a"))], "default"
    )
    assert [(commit.offset, commit.next_offset) for commit in commits] == [
        (info("a").token(3), info("a").token(6)),
        (info("c").token(6), info("c").token(7)),
    ]


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "append", "append", "delete", "fork", "expire", "batch"]),
        st.sampled_from("abc"),
        st.sampled_from("abc"),
        st.integers(0, 5),
    ),
    max_size=12,
)


class TestAnyHistory(TransactionTestCase):
    @given(steps)
    def test_an_offset_keeps_its_position_or_is_refused(self, history: list[tuple[str, str, str, int]]) -> None:
        handed_out: dict[str, tuple[bytes, int]] = {}
        for kind, path, other, size in history:
            created = Create(path, TEXT, data=b"x" * size)
            operations = {
                "create": [created],
                "append": [Append(path, TEXT, b"y" * (size + 1))],
                "delete": [Delete(path)],
                "fork": [Create(path, None, data=b"z" * size, fork=Fork(other))],
                "expire": [Delete(path), created, Delete(path), created],
                "batch": [created, Append(path, TEXT, b"w" * (size + 1)), Delete(path), created],
            }[kind]
            group_commit.apply(operations, "default")
            if kind == "expire":
                Stream.objects.filter(path=path).unguarded().update(deadline=timezone.now())
            for other_path in "abc":
                self.look(other_path, handed_out)

    def look(self, path: str, handed_out: dict[str, tuple[bytes, int]]) -> None:
        stream = log_reader.find([path], "default")[path]
        if not isinstance(stream, StreamInfo):
            return
        content = read(path)[0]
        tokens = [stream.token(position) for position in range(stream.tail + 1)]
        assert tokens == sorted({*tokens})
        for position, token in enumerate(tokens):
            # What was before it when it was handed out is before it now, in whichever stream knows it.
            assert handed_out.setdefault(token, (content[:position], position)) == (content[:position], position)
        for token in handed_out.keys() - {*tokens}:
            position = stream.find(parsed(token))
            assert position is None
