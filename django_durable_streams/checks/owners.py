"""Checks of the patterns of paths in `OWNER`: whether they can match the path of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured

from ..access.base import Permission
from ..access.owners import Owner
from ..access.patterns import PATH_RULE
from ..access.rest_framework import RestFramework


def check_owners(permissions: Sequence[Permission]) -> list[CheckMessage]:
    """W028: a pattern that no path matches. W029: a pattern with an attribute that users do not have."""
    model = _user_model()
    problems: list[CheckMessage] = []
    inner = [one.permission if isinstance(one, RestFramework) else one for one in permissions]
    for pattern in [pattern for one in inner if isinstance(one, Owner) for pattern in one.patterns]:
        if not pattern.can_match:
            problems.append(
                Warning(
                    f"OWNER: No path matches {pattern.text!r}: {PATH_RULE}",
                    hint="Write a pattern such as 'users/{user.pk}/**'.",
                    id="durable_streams.W028",
                )
            )
        for field in pattern.fields if model is not None else ():
            if problem := _find_problem(model, field):
                problems.append(
                    Warning(
                        f"OWNER: No path matches {pattern.text!r}. {problem}",
                        hint="Name a field or a property of the user model, or of a model to which a field leads.",
                        id="durable_streams.W029",
                    )
                )
    return problems


def _user_model() -> Any:
    """Return the user model, or None if it is not there, which other checks report."""
    if not apps.is_installed("django.contrib.auth"):
        return None
    try:
        return get_user_model()
    except ImproperlyConfigured:
        return None


def _find_problem(model: Any, field: str) -> str:
    """Return why a field such as `user.team.slug` has no value for any user. Empty: it may have one."""
    for name in field.split(".")[1:]:
        if not hasattr(model, name):
            return f"{model.__name__} has no {name}."
        try:
            model_field = model._meta.get_field(name)
        except FieldDoesNotExist:
            return f"{model.__name__}.{name} is a method." if callable(getattr(model, name)) else ""
        if model_field.one_to_many or model_field.many_to_many:
            return f"{model.__name__}.{name} has many values."
        model = model_field.related_model
        if model is None:
            return ""
    return ""
