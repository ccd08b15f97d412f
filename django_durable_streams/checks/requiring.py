"""A decorator for checks that need valid settings. They report nothing while the settings are invalid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage

from .. import conf

Check = Callable[..., list[CheckMessage]]


def needs_settings(check: Check) -> Check:
    """Skip a check while `DURABLE_STREAMS` is invalid. `checks.settings` reports the reason."""

    @wraps(check)
    def checked(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
        return [] if conf.findings(conf.project_value()) else check(app_configs, **kwargs)

    return checked
