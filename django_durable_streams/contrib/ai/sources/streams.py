"""What the sources of providers share: the loop that writes the answer opens their streams, and closes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

CUT_OFF = "The model's answer was cut off."
"""The error of an answer whose stream has ended without the provider's sign of the end, as after a lost connection."""


@asynccontextmanager
async def opened(stream: Any) -> AsyncIterator[Any]:
    """Await a stream if it has to be, and close it at the end of the block."""
    values = await stream if inspect.isawaitable(stream) else stream
    try:
        yield values
    finally:
        close = getattr(values, "close", None) or getattr(values, "aclose", None)
        if close is not None:
            closing = close()
            if inspect.isawaitable(closing):
                await closing


def parsed_input(text: str) -> Any:
    """Return the arguments of a tool call. What is not JSON, as models make it now and then, stays text."""
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return text
