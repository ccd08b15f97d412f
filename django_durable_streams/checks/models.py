"""Checks of a project's models that inherit from those of this app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register

from ..models import Stream
from ..models.guard import GuardedModel


@register()
def check_inheritance(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E008: a model inherits from a model of this app with a table of its own."""
    return [
        Error(
            f"{model._meta.label} inherits from a model of {Stream._meta.app_label} with a table of its own. No code "
            "can create its rows.",
            hint="Set proxy = True in its Meta, or make it a model of its own with a OneToOneField to Stream.",
            obj=model,
            id="durable_streams.E008",
        )
        for model in apps.get_models()
        if issubclass(model, GuardedModel) and not model._meta.proxy and model._meta.app_label != Stream._meta.app_label
    ]
