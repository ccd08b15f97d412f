"""Where a project serves its streams, as far as its settings, its URLs and its ASGI module tell. Serves nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse

PACKAGE = __package__.partition(".")[0]


def has_url_entry_point() -> bool:
    """Return whether streams are served through the project's URLs."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        reverse("durable_streams:root")
    except NoReverseMatch:
        return False
    return True


def views_of_urls() -> Iterator[Callable[..., Any]]:
    """Yield all views of the project's URLs."""
    waiting: list[URLPattern | URLResolver] = [get_resolver()] if getattr(settings, "ROOT_URLCONF", None) else []
    while waiting:
        pattern = waiting.pop()
        if isinstance(pattern, URLResolver):
            waiting += pattern.url_patterns
        else:
            yield pattern.callback


def asgi_module() -> str:
    """Return the name of the module with the project's ASGI application. Empty: it is not where Django puts it."""
    named = getattr(settings, "ASGI_APPLICATION", None)
    if named:
        return str(named).rpartition(".")[0]
    other = getattr(settings, "WSGI_APPLICATION", None) or getattr(settings, "ROOT_URLCONF", None)
    package = str(other or "").rpartition(".")[0].removesuffix(".wsgi")
    name = f"{package}.asgi"
    try:
        return name if package and find_spec(name) is not None else ""
    except (ImportError, ValueError):
        return ""


def asgi_module_names_streams() -> bool:
    """Return whether the text of the project's ASGI module names this app. It is not imported, which could do harm."""
    name = asgi_module()
    try:
        spec = find_spec(name) if name else None
        origin = spec.origin if spec is not None else None
        if origin is None:
            return False
        with open(origin, encoding="utf-8") as file:
            return PACKAGE in file.read()
    except (ImportError, ValueError, OSError):
        return False


def asgi_module_serves_streams() -> bool | None:
    """Return whether the project's ASGI module makes an application for streams. It is imported. None: it cannot be."""
    name = asgi_module()
    if not name:
        return None
    try:
        import_module(name)
    except Exception:  # whatever the project's code raises
        return None
    if f"{PACKAGE}.channels" in sys.modules or asgi_module_names_streams():
        return True
    # Another module may make the application. Without one, nothing has imported its class.
    server = sys.modules.get(f"{PACKAGE}.server.asgi")
    # Not isinstance, which evaluates lazy objects of the project, and fails with a dead weak reference.
    return server is not None and any(issubclass(type(thing), server.DurableStreams) for thing in gc.get_objects())
