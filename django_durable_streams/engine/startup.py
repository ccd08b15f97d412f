"""Checks at the start: can this process serve streams, with these settings? Needs no database."""

from __future__ import annotations

import logging
import sys

from django.core.exceptions import ImproperlyConfigured
from django.db import router

from ..models import Stream
from .wakeup import make_wakeup

logger = logging.getLogger(__name__)


def check_startup(using: str | None = None) -> None:
    """Check that this process can serve streams.

    Args:
        using: alias of the database. None: the database to which the router has streams written.

    Raises:
        ImproperlyConfigured: it cannot. The message says why, and what to do.
    """
    check_threads()
    make_wakeup(using or router.db_for_write(Stream)).stop()


def check_threads() -> None:
    """Check that the threads of this process are real threads.

    Raises:
        ImproperlyConfigured: gevent or eventlet has replaced them.
    """
    library = _patched_by()
    if library is not None:
        raise ImproperlyConfigured(
            f"{library} has replaced this process's threads. Streams are served by threads and an event loop, which "
            "would then block each other. Serve them with an ASGI server, such as uvicorn, or with gunicorn's workers "
            "`sync` or `gthread`. Appends and reads in Python work here; `tail` and `writer` do not."
        )


def warn_of_threads() -> None:
    """Log the error of `check_threads`. A process that only appends may go on."""
    try:
        check_threads()
    except ImproperlyConfigured as error:
        logger.error("Streams cannot be served from this process. %s", error)


def _patched_by() -> str | None:
    """Return the name of the library that has replaced this process's threads, or None."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and (monkey.is_module_patched("threading") or monkey.is_module_patched("thread")):
        return "gevent"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return None
