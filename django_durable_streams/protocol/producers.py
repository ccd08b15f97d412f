"""Idempotent producers: the rules of section 5.2.1 as a pure state transition, and the names that there are.

Producers that Python code names are kept apart from those of HTTP clients: a client that may append could otherwise
send a job's name, and the job would pass over as many of its messages as the client has counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import headers
from .arguments import MAX_NAME_LENGTH, MAX_SAFE_INTEGER, integer, opaque
from .errors import InvalidEpoch, InvalidHeader, ProducerFenced, ProducerSequenceGap

SERVER_MARK = "\x01"
"""What the ids of producers that Python code has named begin with in the database. A `Producer-Id` of HTTP has no
control characters, so no client can be taken for one of them, and take its sequence numbers."""

MAX_STORED_NAME_LENGTH = len(SERVER_MARK) + MAX_NAME_LENGTH
"""Characters in the stored id of a producer."""


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


def server_claim(value: Any) -> ProducerClaim:
    """Return the claim of a producer that Python code has named: (id, epoch, sequence number).

    Raises:
        InvalidHeader: it is not these three, or one of them cannot be.
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
        InvalidHeader: the name cannot be one.
    """
    return SERVER_MARK + opaque("The producer's id", name)


def producer_name(stored: str) -> str:
    """Return the name by which those who use a producer know it."""
    return stored.removeprefix(SERVER_MARK)


def is_server_producer(stored: str) -> bool:
    """Whether Python code has named a producer, rather than a client."""
    return stored.startswith(SERVER_MARK)
