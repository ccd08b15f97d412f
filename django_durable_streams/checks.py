"""System checks: mistakes that are cheaper to hear of at start than in production."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from . import conf


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: `DURABLE_STREAMS` is no dict. E002: it has a key that means nothing. E003: CORS_ORIGINS is no list."""
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, dict):
        return [Error(f"{conf.SETTING} must be a dict.", id="durable_streams.E001")]
    known = conf.names()
    found: list[CheckMessage] = []
    if isinstance(given.get("CORS_ORIGINS"), str):
        found.append(
            Error(
                "CORS_ORIGINS must be a list or tuple of origins.",
                hint=f"Write [{given['CORS_ORIGINS']!r}].",
                id="durable_streams.E003",
            )
        )
    return found + [
        Error(
            f"{conf.SETTING} has an unknown key: {key!r}.",
            hint=_suggestion(str(key), known),
            id="durable_streams.E002",
        )
        for key in given
        if key not in known
    ]


def _suggestion(key: str, known: list[str]) -> str:
    near = get_close_matches(key.upper(), known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."
