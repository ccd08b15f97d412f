"""Flow control by pings: a client that does not read gets no more data.

Servers differ in what they do with a client that does not read. uvicorn lets a send wait, and Daphne keeps everything
that is sent. So the client itself confirms what it has handled: after each PIECE_BYTES the server sends a ping, and the
client answers with a pong. The invariant: at most WINDOW_BYTES and one frame are sent and not confirmed. While there is
no room, a ping is unanswered. Only who has read a ping knows its number, so no client confirms what it has not read.
Knows no socket.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from secrets import randbelow
from typing import Any

from ...protocol.errors import InvalidFrame
from ..response_memory import PIECE_BYTES, Transfer, memory

WINDOW_BYTES = 256 * 1024
"""Bytes that may be sent and not confirmed, so that a client gets about so many in each round trip."""

MAX_STEP = 2**24
"""The largest step between the numbers of two pings. They stay below 2^53, where JavaScript counts, for 2^29 pings."""


class UnconfirmedBytes:
    """Stands for the bytes of a sent frame in the memory of responses. The server has the bytes themselves."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


@dataclass(slots=True)
class _Ping:
    number: int
    total: int
    """All bytes that were sent before it."""
    pieces: int
    """Pieces that were sent between the ping before and this one. A client has SEND_TIMEOUT for each."""
    sent_at: float
    transfers: list[Transfer[Any]]


class Window:
    """The bytes of one socket that its client has not confirmed.

    Args:
        now: the monotonic time.
    """

    def __init__(self, now: float) -> None:
        self._sent = 0
        self._confirmed = 0
        self._pinged = 0
        """Bytes that were sent before the last ping."""
        self._number = 0
        self._last_confirmed = 0
        self._pings: deque[_Ping] = deque()
        self._transfers: list[Transfer[Any]] = []
        """Large frames since the last ping."""
        self._confirmed_at = now

    @property
    def unconfirmed(self) -> int:
        """Bytes that were sent and not confirmed."""
        return self._sent - self._confirmed

    @property
    def has_room(self) -> bool:
        """Whether one more frame may be sent."""
        return self.unconfirmed < WINDOW_BYTES

    @property
    def is_ping_due(self) -> bool:
        """Whether enough bytes were sent since the last ping."""
        return self._sent - self._pinged >= PIECE_BYTES

    @property
    def is_waiting(self) -> bool:
        """Whether a ping is unanswered."""
        return bool(self._pings)

    @property
    def pieces(self) -> int:
        """Pieces of PIECE_BYTES that the client has to take next, at least one."""
        return self._pings[0].pieces if self._pings else 1

    def add(self, size: int, transfer: Transfer[Any] | None = None) -> None:
        """Count a frame that is being sent. Its transfer is removed once it is confirmed."""
        self._sent += size
        if transfer is not None:
            self._transfers.append(transfer)

    def ping(self, now: float) -> int:
        """Return the number of a new ping, which is sent now."""
        self._number += 1 + randbelow(MAX_STEP)
        pieces = max(1, (self._sent - self._pinged) // PIECE_BYTES)
        self._pings.append(_Ping(self._number, self._sent, pieces, now, self._transfers))
        self._transfers = []
        self._pinged = self._sent
        return self._number

    def confirm(self, number: int, now: float) -> None:
        """The client has answered a ping, and has handled all frames before it.

        Raises:
            InvalidFrame: there was no such ping.
        """
        is_early = number > self._last_confirmed and all(ping.number != number for ping in self._pings)
        if number <= 0 or is_early:
            raise InvalidFrame("The pong answers no ping. Send back the number of the last ping.")
        while self._pings and self._pings[0].number <= number:
            ping = self._pings.popleft()
            self._last_confirmed = ping.number
            self._confirmed = ping.total
            self._confirmed_at = now
            for transfer in ping.transfers:
                memory.remove(transfer)

    def is_overdue(self, now: float, seconds: float) -> bool:
        """Return whether the client has not confirmed a piece within so many seconds."""
        if not self._pings:
            return False
        ping = self._pings[0]
        return now >= max(ping.sent_at, self._confirmed_at) + seconds * ping.pieces

    def close(self) -> None:
        """Count the large frames no longer. May be called again."""
        for transfer in [*self._transfers, *(transfer for ping in self._pings for transfer in ping.transfers)]:
            memory.remove(transfer)
