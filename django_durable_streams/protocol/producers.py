"""Idempotent producers: the rules of section 5.2.1 as a pure state transition."""

from __future__ import annotations

from typing import NamedTuple

from . import headers
from .errors import InvalidEpoch, ProducerFenced, ProducerSequenceGap


class ProducerState(NamedTuple):
    """What a stream remembers of one producer: its epoch and the last sequence number accepted in it."""

    epoch: int
    seq: int


class ProducerClaim(NamedTuple):
    """What a request says of its producer: `Producer-Id`, `Producer-Epoch`, `Producer-Seq`."""

    id: str
    epoch: int
    seq: int


def advance(state: ProducerState | None, claim: ProducerClaim) -> ProducerState | None:
    """Return the state after accepting `claim`, or None where the request was accepted before (a duplicate).

    Raises:
        ProducerFenced: the epoch is older than the known one (403, carries `Producer-Epoch`).
        InvalidEpoch: a newer epoch starts with another sequence number than 0 (400).
        ProducerSequenceGap: a sequence number was left out (409, carries the expected and the received one).
    """
    if state is None:
        if claim.seq != 0:
            raise _gap(0, claim.seq)
    elif claim.epoch < state.epoch:
        raise ProducerFenced(
            f"Epoch {claim.epoch} of this producer was replaced by epoch {state.epoch}. "
            "Stop, or take over with a greater epoch and sequence number 0.",
            ((headers.PRODUCER_EPOCH, b"%d" % state.epoch),),
        )
    elif claim.epoch > state.epoch:
        if claim.seq != 0:
            raise InvalidEpoch("A new epoch must start with Producer-Seq 0.")
    elif claim.seq <= state.seq:
        return None
    elif claim.seq > state.seq + 1:
        raise _gap(state.seq + 1, claim.seq)
    return ProducerState(claim.epoch, claim.seq)


def _gap(expected: int, received: int) -> ProducerSequenceGap:
    return ProducerSequenceGap(
        f"Expected Producer-Seq {expected}, received {received}. Send the missing requests first.",
        (
            (headers.PRODUCER_EXPECTED_SEQ, b"%d" % expected),
            (headers.PRODUCER_RECEIVED_SEQ, b"%d" % received),
        ),
    )
