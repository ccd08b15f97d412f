"""Registers the metrics with prometheus_client, once in a process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from prometheus_client import REGISTRY

from ...api import transactions
from ...runtime.lifecycle import call_at_start, call_at_stop
from . import multiprocess
from .collector import StreamsCollector


@cache
def register() -> None:
    """Add the metrics to the registry of prometheus_client or, in multi-process mode, write them to its files.

    Raises:
        ImproperlyConfigured: the directory of multi-process mode is missing.
    """
    directory = multiprocess.directory()
    if directory is None:
        REGISTRY.register(StreamsCollector())
        return
    if not Path(directory).is_dir():
        raise ImproperlyConfigured(f"PROMETHEUS_MULTIPROC_DIR is {directory!r}, which is not a directory. Create it.")
    call_at_start(multiprocess.writer.start)
    call_at_stop(multiprocess.writer.write_or_log)
    transactions.listen(_start)


def _start(commits: Sequence[Any], using: str) -> None:
    multiprocess.writer.start()  # a process without an engine appends in its own transactions
