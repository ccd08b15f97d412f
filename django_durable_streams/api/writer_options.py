"""The options of writers, and their checks. Knows no stream and no event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

from ..protocol.producers import server_producer
from ..protocol.values import Data

INTERVAL = 0.05
"""Seconds between the commits of a writer by default, where few write: 20 commits in a second."""

MAX_COMMITS = 2000
"""Commits that all writers of a process make in a second by default. With more writers, each commits less often."""

MAX_BYTES = 64 * 1024
"""Bytes of collected messages from which a writer commits at once. `write` then waits until that commit begins."""


def default_interval(writers: int) -> float:
    """Return the seconds between two commits of each of so many writers."""
    return max(INTERVAL, writers / MAX_COMMITS)


class WriterOptions(TypedDict, total=False):
    """The options of `Stream.writer` and `Stream.awriter`."""

    producer: str | None
    """A name under which a restarted job continues where it stopped, with each message exactly once. A new writer of
    the name fences all earlier ones, which get `ProducerFenced`. `written` is the number of messages that the stream
    has already, and that the job skips. While the database does not answer, a writer with a name tries again for a
    minute."""

    close: bool
    """Whether to close the stream at the end. The default is True, but False for `aappend_from`."""

    on_error: Literal["leave", "close"]
    """What happens to the stream if the block ends with an exception: `leave` it open, which is the default, for a job
    that may be restarted, or `close` it. Earlier messages are committed in both cases."""

    error_message: Data | Callable[[BaseException], Data]
    """A last message if the block ends with an exception, or a function that makes it from the exception. `written`
    does not count it. If it cannot be made or encoded, the error is logged and "The writer failed." is written."""

    interval: float | None
    """Seconds between two commits. By default 0.05, so 20 in a second. With more than 100 writers in the process that
    have messages, it is longer, 0.1 seconds with 200, because each commit takes processor time."""

    max_bytes: int
    """Bytes of collected messages from which the writer commits at once: 64 KiB by default. `write` then waits until
    that commit begins."""


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """The options of one writer with their defaults, see `WriterOptions`.

    Raises:
        ValueError: an option has an invalid value.
    """

    producer: str | None = None
    close: bool = True
    on_error: Literal["leave", "close"] = "leave"
    error_message: Data | Callable[[BaseException], Data] = None
    interval: float | None = None
    max_bytes: int = MAX_BYTES

    def __post_init__(self) -> None:
        if self.on_error not in ("leave", "close"):
            raise ValueError("on_error is 'leave' or 'close'.")
        if self.interval is not None and not (isinstance(self.interval, int | float) and self.interval >= 0):
            raise ValueError("interval is a number of seconds, 0 or more.")
        if not (isinstance(self.max_bytes, int) and self.max_bytes > 0):
            raise ValueError("max_bytes is a whole number, 1 or more.")

    def interval_among(self, writers: int) -> float:
        """Return the seconds between two commits while so many writers of the process have messages."""
        return default_interval(writers) if self.interval is None else self.interval

    def stored_producer(self) -> str | None:
        """Return the stored id of the producer, or None.

        Raises:
            InvalidHeader: the name of the producer is invalid.
        """
        return server_producer(self.producer) if self.producer is not None else None
