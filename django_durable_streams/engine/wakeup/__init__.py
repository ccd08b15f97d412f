"""Wake-up backends: they tell other processes about commits. The settings name a backend by its dotted path:
`DURABLE_STREAMS["WAKEUP"] = {"BACKEND": "django_durable_streams.engine.wakeup.redis.RedisWakeup", "CACHE": "default"}`.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ...conf import config
from .base import Subscriber, Wakeup, WakeUpMessage, WakeupProblem

__all__ = ["Subscriber", "WakeUpMessage", "Wakeup", "WakeupProblem", "make_wakeup"]


def make_wakeup(using: str) -> Wakeup:
    """Return the backend of the settings, for the streams of a database.

    Raises:
        ImproperlyConfigured: the backend cannot be imported, or its options are wrong.
    """
    options = dict(config().wakeup)
    path = str(options.pop("BACKEND", ""))
    try:
        backend = import_string(path)
    except (ImportError, TypeError, ValueError) as error:  # a TypeError: it begins with dots
        raise ImproperlyConfigured(f"DURABLE_STREAMS['WAKEUP']['BACKEND'] cannot be imported: {error}") from error
    try:
        wakeup = backend(using, **{str(key).lower(): value for key, value in options.items()})
    except (TypeError, ValueError, AttributeError) as error:  # an AttributeError: a URL that is no text
        raise ImproperlyConfigured(f"DURABLE_STREAMS['WAKEUP']: {path} does not take these options: {error}") from error
    if not isinstance(wakeup, Wakeup):
        raise ImproperlyConfigured(f"DURABLE_STREAMS['WAKEUP']: {path} is no subclass of `Wakeup`.")
    return wakeup
