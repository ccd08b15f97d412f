"""Producers, against a server that keeps every accepted request in a list."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from django_durable_streams.protocol.errors import InvalidEpoch, ProducerFenced, ProducerSequenceGap
from django_durable_streams.protocol.producers import ProducerClaim, ProducerState, advance

small = st.integers(0, 4)


def header(error: ProducerFenced | ProducerSequenceGap, name: bytes) -> int:
    return int(dict(error.headers)[name])


class Producers(RuleBasedStateMachine):
    """One producer that sends anything, and what a log of its requests says about each."""

    def __init__(self) -> None:
        super().__init__()
        self.state: ProducerState | None = None
        self.accepted: list[tuple[int, int]] = []

    @rule(epoch=small, seq=small)
    def send_anything(self, epoch: int, seq: int) -> None:
        self.send(epoch, seq)

    @rule()
    def send_the_next(self) -> None:
        epoch, seq = self.accepted[-1] if self.accepted else (0, -1)
        assert self.send(epoch, seq + 1)

    @rule()
    def send_the_last_again(self) -> None:
        if self.accepted:
            assert not self.send(*self.accepted[-1])

    @rule()
    def take_over(self) -> None:
        epoch = self.accepted[-1][0] + 1 if self.accepted else 0
        assert self.send(epoch, 0)

    def send(self, epoch: int, seq: int) -> bool:
        """Send a request and return whether it was new. What may happen to it is told from the log alone."""
        current = max((accepted for accepted, _ in self.accepted), default=None)
        last = max((number for accepted, number in self.accepted if accepted == epoch), default=-1)
        claim = ProducerClaim("p", epoch, seq)
        if current is not None and epoch < current:
            with pytest.raises(ProducerFenced) as fenced:
                advance(self.state, claim)
            assert header(fenced.value, b"producer-epoch") == current
            return False
        if current is not None and epoch > current and seq != 0:
            with pytest.raises(InvalidEpoch):
                advance(self.state, claim)
            return False
        if seq > last + 1:
            with pytest.raises(ProducerSequenceGap) as gap:
                advance(self.state, claim)
            assert header(gap.value, b"producer-expected-seq") == last + 1
            assert header(gap.value, b"producer-received-seq") == seq
            return False
        after = advance(self.state, claim)
        if (epoch, seq) in self.accepted:
            assert after is None
            return False
        assert after == ProducerState(epoch, seq)
        self.state = after
        self.accepted.append((epoch, seq))
        return True

    @invariant()
    def what_was_accepted_is_in_order_without_gaps_and_without_doubles(self) -> None:
        assert self.accepted == sorted(set(self.accepted))
        for epoch in {epoch for epoch, _ in self.accepted}:
            numbers = [seq for accepted, seq in self.accepted if accepted == epoch]
            assert numbers == list(range(len(numbers)))


TestProducers = Producers.TestCase


def test_a_first_request_may_come_in_any_epoch() -> None:
    assert advance(None, ProducerClaim("p", 7, 0)) == ProducerState(7, 0)


def test_a_first_request_has_sequence_number_0() -> None:
    with pytest.raises(ProducerSequenceGap):
        advance(None, ProducerClaim("p", 0, 1))


def test_an_older_duplicate_is_one_too() -> None:
    assert advance(ProducerState(1, 9), ProducerClaim("p", 1, 3)) is None


class TestSeveralNumbers:
    """A request that takes several consecutive sequence numbers, as a writer's messages of one commit do."""

    def test_they_are_accepted_as_a_whole(self) -> None:
        assert advance(None, ProducerClaim("p", 0, 0), 3) == ProducerState(0, 2)
        assert advance(ProducerState(1, 4), ProducerClaim("p", 1, 5), 3) == ProducerState(1, 7)
        assert advance(ProducerState(1, 4), ProducerClaim("p", 2, 0), 3) == ProducerState(2, 2)

    @pytest.mark.parametrize("last", [7, 8, 20])
    def test_the_same_request_again_is_a_duplicate(self, last: int) -> None:
        assert advance(ProducerState(1, last), ProducerClaim("p", 1, 5), 3) is None

    @pytest.mark.parametrize("last", [2, 3, 5, 6])
    def test_a_gap_and_an_overlap_are_refused(self, last: int) -> None:
        with pytest.raises(ProducerSequenceGap) as gap:
            advance(ProducerState(1, last), ProducerClaim("p", 1, 5), 3)
        assert header(gap.value, b"producer-expected-seq") == last + 1
