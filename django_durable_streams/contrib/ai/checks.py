"""Checks of the settings of AI answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from ... import conf
from ...subscriptions.consumers.task_framework import backend_problem
from .permissions import permission


@register()
def check_answers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E012: the permission class cannot be made. E013: the task backend cannot be used."""
    if conf.findings(conf.project_value()):
        return []
    messages: list[CheckMessage] = []
    try:
        permission()
    except Exception as error:
        hint = "Name a subclass of django_durable_streams.contrib.ai.permissions.ChatPermission."
        messages.append(Error(f"AI_PERMISSION_CLASS cannot be used: {error}", hint=hint, id="durable_streams.E012"))
    if conf.config().ai_runs_in == "tasks":
        problem = backend_problem(conf.config().ai_task_backend, "default")
        if problem:
            messages.append(Error("AI_RUNS_IN is `tasks`, which cannot work.", hint=problem, id="durable_streams.E013"))
    return messages
