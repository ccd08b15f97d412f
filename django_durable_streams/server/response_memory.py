"""The data that clients have not taken yet: counted for the whole process, and bounded by MAX_RESPONSE_MEMORY.

A client takes a large response in pieces, and the process keeps all of its data until the last one. So clients that
take their time could take all of the memory. Each entry point that sends by itself counts such data here. Where the
limit is reached, the clients that have taken no piece for longest are cut off. Where all of them have only begun, the
new response is refused.

Responses that share their data count once. Up to PIECE_BYTES for each connection are not counted: a connection costs
more than that anyway. Knows no connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from threading import Lock
from typing import Any, Generic, TypeVar

from ..conf import config
from ..protocol.errors import ServiceUnavailable
from ..runtime.results import call_in

PIECE_BYTES = 64 * 1024
"""Bytes that are sent at a time. A client has SEND_TIMEOUT for each piece, so a long response may take long."""

GRACE_SECONDS = 2.0
"""How long a client may take a response before it can be cut off. Thousands may ask for their pages at once."""


D = TypeVar("D", bound=Sized)


class Transfer(Generic[D]):
    """Data that one client has not taken yet.

    Args:
        data: the data, which is kept until the transfer ends. Its length counts.
        loop: the event loop that sends it.
        cut_off: makes the transfer end soon. It is called in that event loop.
    """

    __slots__ = ("_cut_off", "_loop", "began", "data")

    def __init__(self, data: D, loop: asyncio.AbstractEventLoop, cut_off: Callable[[], object]) -> None:
        self.data = data
        self.began = time.monotonic()
        self._loop = loop
        self._cut_off = cut_off

    def cut_off(self) -> None:
        """Make the transfer end soon. Safe to call from any thread."""
        call_in(self._loop, self._cut_off)


class ResponseMemory:
    """The transfers of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.held = 0
        """Bytes of the data of all transfers."""
        self._transfers: OrderedDict[Transfer[Any], None] = OrderedDict()
        """In the order in which their clients have last taken a piece."""
        self._shares: dict[int, int] = {}
        """Transfers by the identity of their data, which they keep. So no other data has it."""
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._transfers)

    def admit(self, transfer: Transfer[Any]) -> None:
        """Count a transfer until `remove`. A single one may be over the limit.

        Raises:
            ServiceUnavailable: there is no room for its data (503 with `Retry-After`).
        """
        if not self._add(transfer, may_refuse=True):
            raise ServiceUnavailable("Too many responses wait for their clients. Try again.")

    def add(self, transfer: Transfer[Any]) -> None:
        """Count a transfer until `remove`, although there may be no room: its data is being sent already."""
        self._add(transfer, may_refuse=False)

    def add_if_room(self, transfer: Transfer[Any]) -> bool:
        """Count a transfer until `remove` if nobody has to be cut off for it. Return whether it is counted.

        This is for data that can be read again: it must not take the place of data that a client waits for.
        """
        limit = config().max_response_memory
        with self._lock:
            size = 0 if id(transfer.data) in self._shares else len(transfer.data)
            has_room = self.held + size <= limit
            if has_room:
                self._keep(transfer)
        return has_room

    def report_progress(self, transfer: Transfer[Any]) -> None:
        """Note that a client has taken a piece."""
        with self._lock:
            if transfer in self._transfers:
                self._transfers.move_to_end(transfer)

    def remove(self, transfer: Transfer[Any]) -> None:
        """Count a transfer no longer. May be called again."""
        with self._lock:
            if transfer in self._transfers:
                self._remove(transfer)

    @contextmanager
    def counted(
        self, data: bytes, cut_off: Callable[[], object], *, may_refuse: bool = False
    ) -> Iterator[Transfer[bytes]]:
        """Count data for the block, which sends it in the running event loop. `cut_off`: as for `Transfer`.

        Raises:
            ServiceUnavailable: as for `admit`, if the transfer may be refused.
        """
        transfer = Transfer(data, asyncio.get_running_loop(), cut_off)
        if may_refuse:
            self.admit(transfer)
        else:
            self.add(transfer)
        try:
            yield transfer
        finally:
            self.remove(transfer)

    def _add(self, transfer: Transfer[Any], *, may_refuse: bool) -> bool:
        """Count a transfer, and cut others off to make room. Return whether it is counted."""
        limit = config().max_response_memory
        key = id(transfer.data)
        slowest = []
        with self._lock:
            size = 0 if key in self._shares else len(transfer.data)
            while self.held + size > limit and (slow := self._slowest()) is not None:
                self._remove(slow)
                slowest.append(slow)
            is_admitted = not may_refuse or self.held + size <= limit or not self._transfers
            if is_admitted:
                self._keep(transfer)
        for slow in slowest:
            slow.cut_off()
        return is_admitted

    def _keep(self, transfer: Transfer[Any]) -> None:
        key = id(transfer.data)
        shares = self._shares.get(key, 0)
        self._shares[key] = shares + 1
        self.held += 0 if shares else len(transfer.data)
        self._transfers[transfer] = None

    def _slowest(self) -> Transfer[Any] | None:
        """Return the transfer to cut off next. If that one has only begun, all others have moved since."""
        transfer = next(iter(self._transfers), None)
        if transfer is None or time.monotonic() - transfer.began < GRACE_SECONDS:
            return None
        return transfer

    def _remove(self, transfer: Transfer[Any]) -> None:
        del self._transfers[transfer]
        key = id(transfer.data)
        self._shares[key] -= 1
        if not self._shares[key]:
            del self._shares[key]
            self.held -= len(transfer.data)


memory = ResponseMemory()
