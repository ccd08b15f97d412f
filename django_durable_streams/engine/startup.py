"""What cannot work in this process, or with these settings, found before anything is served or committed."""

from __future__ import annotations

import logging
import sys

from django.core.exceptions import ImproperlyConfigured
from django.db import router

from ..models import Stream
from .wakeup import make_wakeup

logger = logging.getLogger(__name__)


def check_startup(using: str | None = None) -> None:
    """See that streams can be served from this process.

    Args:
        using: alias of the database; the one that the router has for streams, if none is named.

    Raises:
        ImproperlyConfigured: they cannot; says why, and what to do.
    """
    check_threads()
    make_wakeup(using or router.db_for_write(Stream)).stop()


def check_threads() -> None:
    """See that threads are threads.

    Raises:
        ImproperlyConfigured: gevent or eventlet has put its own in their place.
    """
    culprit = _patched_by()
    if culprit is not None:
        raise ImproperlyConfigured(
            f"{culprit} has replaced this process's threads, and streams are served by threads and an event loop that "
            "would block each other. Serve them with an ASGI server, such as uvicorn, or with gunicorn's workers "
            "`sync` or `gthread`. Appending and reading in Python works here; `tail` and `writer` do not."
        )


def warn_of_threads() -> None:
    """Log what `check_threads` would raise: a process that only appends may go on."""
    try:
        check_threads()
    except ImproperlyConfigured as error:
        logger.error("Streams cannot be served from this process. %s", error)


def _patched_by() -> str | None:
    """Return the name of the library that has replaced this process's threads, if one has."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and (monkey.is_module_patched("threading") or monkey.is_module_patched("thread")):
        return "gevent"
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return None
