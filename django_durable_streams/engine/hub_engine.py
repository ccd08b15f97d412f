"""The part of the engine that its hubs use. A hub knows the engine by this protocol only."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ..store.stream_info import StreamInfo
from .snapshot_reader import Snapshot


class HubEngine(Protocol):
    """The part of the engine that a hub uses to reach the database, for all its readers."""

    def follow(self, info: StreamInfo, position: int) -> Awaitable[Snapshot]:
        """Read a stream again, from a position that a reader has reached."""

    def query_status(self, stream_ids: tuple[int, ...]) -> Awaitable[dict[int, StreamInfo]]:
        """Return the metadata of the streams that still exist, by id, with one query."""

    def renew(self, info: StreamInfo) -> None:
        """Start the TTL of a stream again, because readers wait on it. Does not wait for the write."""

    def report_data_loss(self, info: StreamInfo) -> None:
        """Drop all cached data, because the database has lost a part of a stream."""
