"""The end of a writer's stream after an exception, and its last message, which code of the project may make.

That code (`error_message`) may fail, raise SystemExit or block. The stream ends in any case, and the background loop
leaves that code to a thread. Knows neither the loop nor the messages before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..protocol.values import Data
from ..store.encoding import encode

logger = logging.getLogger(__name__)

GENERIC_MESSAGE = "The writer failed."
"""The last message of a failed writer whose own `error_message` cannot be made or encoded."""

_GENERIC_INSTEAD = "The error_message of a writer of %s cannot be used. A generic message is written instead."


class Ending(NamedTuple):
    """How to end a stream.

    Attributes:
        error: the exception that ended the writer's block; None if the block completed.
        message: an encoded last message for the stream if there is an error; empty for none.
    """

    error: BaseException | None
    message: bytes = b""


@dataclass(frozen=True, slots=True)
class ErrorEndings:
    """Makes the endings of one writer's stream after exceptions.

    Attributes:
        error_message: the option of the writer.
        content_type: the stream's content type.
        path: the stream's path, for log messages.
    """

    error_message: Data | Callable[[BaseException], Data]
    content_type: str
    path: str

    def _make(self, error: BaseException) -> Ending:
        """Return how to end the stream after an exception. SystemExit and its like pass."""
        if self.error_message is None:
            return Ending(error)
        try:
            message = self.error_message(error) if callable(self.error_message) else self.error_message
            return Ending(error, b"" if message is None else encode(self.content_type, message))
        except Exception:
            logger.exception(_GENERIC_INSTEAD, self.path)
        return self.make_generic(error)

    def make_generic(self, error: BaseException) -> Ending:
        """The same, without code of the project."""
        if self.error_message is None:
            return Ending(error)
        try:
            return Ending(error, encode(self.content_type, GENERIC_MESSAGE))
        except Exception:  # the content type has no place for text
            return Ending(error)

    def make_surely(
        self, error: BaseException, passes: type[BaseException] | tuple[type[BaseException], ...] = ()
    ) -> Ending:
        """The same, whatever the code of the project raises, except what `passes`."""
        try:
            return self._make(error)
        except passes:
            raise
        except BaseException:
            logger.exception(_GENERIC_INSTEAD, self.path)
            return self.make_generic(error)

    async def make_in_thread(self, error: BaseException) -> Ending:
        """The same, while the running event loop goes on."""
        try:
            return await asyncio.to_thread(self.make_surely, error)
        except RuntimeError:  # Python ends, and starts no thread any more
            return self.make_generic(error)
