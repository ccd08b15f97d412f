"""Checks of `DURABLE_STREAMS`: its keys, and the types and values of its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from .. import conf
from ..server.validation import config_findings


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: not a dict. E002: an unknown key. E003: a value of the wrong type. E004: an invalid value."""
    findings = conf.findings(conf.project_value()) or config_findings(conf.config())
    return [Error(finding.message, hint=finding.hint or None, id=finding.id) for finding in findings]
