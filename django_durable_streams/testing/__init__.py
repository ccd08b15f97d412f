"""Tools for the tests of projects: a client that reads streams live, and engines that work inside a test.

See docs/testing.md. The fixtures for pytest are in `testing.plugin`.
"""

from .cases import StreamsMixin
from .client import EventReader, Exchange, Reply, StreamClient
from .consumers import run_consumers
from .engines import inline_engines, stop_engines

__all__ = [
    "EventReader",
    "Exchange",
    "Reply",
    "StreamClient",
    "StreamsMixin",
    "inline_engines",
    "run_consumers",
    "stop_engines",
]
