"""How far long work is, on the error output: a bar by `tqdm` where that is installed, else a line now and then.

Nothing is written with `--verbosity 0`, and without a terminal only the lines, more seldom.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .base import Console

FIRST_SECONDS = 2.0
"""Work that ends sooner writes nothing."""

LINE_SECONDS, LOG_SECONDS = 2.0, 30.0
"""Time between two lines, on a terminal and elsewhere."""


class Progress:
    """Counts what is done.

    Args:
        console: where lines go.
        noun: what is counted, such as `streams`.
        total: how many there are, if that is known.
    """

    def __init__(self, console: Console, noun: str, total: int | None = None) -> None:
        self.done = 0
        self._console = console
        self._noun = noun
        self._total = total
        self._began = time.monotonic()
        self._next_line = self._began + FIRST_SECONDS
        self._bar: Any = _bar(noun, total) if console.verbosity and sys.stderr.isatty() else None

    def add(self, count: int) -> None:
        """Count some more."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + (LINE_SECONDS if sys.stderr.isatty() else LOG_SECONDS)
            of_total = f" of {self._total:,}" if self._total is not None else ""
            rate = self.done / (now - self._began)
            self._console.note(f"{self.done:,}{of_total} {self._noun}, {rate:,.0f} a second")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(console: Console, noun: str, total: int | None = None) -> Iterator[Progress]:
    """Yield a `Progress`, which ends with the block."""
    counting = Progress(console, noun, total)
    try:
        yield counting
    finally:
        counting.close()


def _bar(noun: str, total: int | None) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=f" {noun}", delay=FIRST_SECONDS, leave=False)
