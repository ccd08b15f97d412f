"""Idempotent producers: the rules of section 5.2.1 as a pure state transition, and the names of producers.

Producers of Python code and producers of HTTP clients have separate names. Otherwise a client could send the name of a
job, and the job would skip as many messages as the client has counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import headers
from .arguments import MAX_NAME_LENGTH, MAX_SAFE_INTEGER, integer, opaque
from .errors import InvalidEpoch, InvalidHeader, ProducerFenced, ProducerSequenceGap

SERVER_MARK = "\x01"
"""The first character of the stored ids of producers that Python code names. A `Producer-Id` has no control characters,
so no client can use such an id."""

MAX_STORED_NAME_LENGTH = len(SERVER_MARK) + MAX_NAME_LENGTH
"""Characters in the stored id of a producer."""


class ProducerState(NamedTuple):
    """The state of a producer on a stream: its epoch, and the last accepted sequence number of that epoch."""

    epoch: int
    seq: int


class ProducerClaim(NamedTuple):
    """The producer headers of a request: `Producer-Id`, `Producer-Epoch`, `Producer-Seq`."""

    id: str
    epoch: int
    seq: int


def advance(state: ProducerState | None, claim: ProducerClaim, count: int = 1) -> ProducerState | None:
    """Return the state after accepting `claim`, or None if the request is a duplicate (section 5.2.1).

    Args:
        state: the present state. None: the producer is new.
        claim: the claim of a request.
        count: how many consecutive numbers the request takes, from that of the claim on. Requests over HTTP take one.

    Raises:
        ProducerFenced: the epoch is older than that of the state (403 with `Producer-Epoch`).
        InvalidEpoch: a newer epoch starts with a sequence number other than 0 (400).
        ProducerSequenceGap: a sequence number was skipped (409 with the expected and the received one). Or some of the
            numbers were accepted before, and others were not.
    """
    last = claim.seq + count - 1
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
    elif last <= state.seq:
        return None
    elif claim.seq != state.seq + 1:
        raise _gap(state.seq + 1, claim.seq)
    return ProducerState(claim.epoch, last)


def _gap(expected: int, received: int) -> ProducerSequenceGap:
    return ProducerSequenceGap(
        f"Expected Producer-Seq {expected}, received {received}. Send the missing requests first.",
        (
            (headers.PRODUCER_EXPECTED_SEQ, b"%d" % expected),
            (headers.PRODUCER_RECEIVED_SEQ, b"%d" % received),
        ),
    )


def server_claim(value: Any) -> ProducerClaim:
    """Return the claim for the `producer` argument of Python code: (id, epoch, sequence number).

    Raises:
        InvalidHeader: the value is no such tuple, or one of its items is invalid.
    """
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise InvalidHeader("producer must be a tuple of the producer's id, its epoch and the sequence number.")
    name, epoch, seq = value
    return ProducerClaim(
        server_producer(name),
        integer("The producer's epoch", epoch, 0, MAX_SAFE_INTEGER, "2^53-1"),
        integer("The producer's sequence number", seq, 0, MAX_SAFE_INTEGER, "2^53-1"),
    )


def server_producer(name: Any) -> str:
    """Return the stored id of a producer that Python code names.

    Raises:
        InvalidHeader: the name is invalid.
    """
    return SERVER_MARK + opaque("The producer's id", name)


def producer_name(stored: str) -> str:
    """Return the name of a producer from its stored id."""
    return stored.removeprefix(SERVER_MARK)


def is_server_producer(stored: str) -> bool:
    """Whether Python code, and not a client, has named a producer."""
    return stored.startswith(SERVER_MARK)
