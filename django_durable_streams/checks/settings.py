"""Whether `DURABLE_STREAMS` says what can be understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from .. import conf
from ..server.validation import config_findings


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no dict. E002: a key that means nothing. E003: a value of the wrong type. E004: a value that cannot be."""
    found = conf.findings(conf.project_value()) or config_findings(conf.config())
    return [Error(one.message, hint=one.hint or None, id=one.id) for one in found]
