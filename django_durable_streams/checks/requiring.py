"""Checks that look at what the settings mean, and have nothing to say where these cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage

from .. import conf

Check = Callable[..., list[CheckMessage]]


def needs_settings(check: Check) -> Check:
    """Leave a check out where `DURABLE_STREAMS` cannot be used: `checks.settings` says why."""

    @wraps(check)
    def checked(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
        return [] if conf.findings(conf.project_value()) else check(app_configs, **kwargs)

    return checked
