"""From what the settings name to permission objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import Action, Permission


def make_permissions(given: Any) -> list[Permission]:
    """Return the permissions that a setting names: one, or a list of which any may allow.

    Raises:
        ImproperlyConfigured: one cannot be made.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise ImproperlyConfigured(
                "PERMISSION_CLASSES is an empty list; leave it out for Django's model permissions."
            )
        return [make_permission(each) for each in given]
    return [make_permission(given)]


def make_permission(given: Any) -> Permission:
    """Return the permission that a dotted path, or a dict with `CLASS` and options, names.

    Raises:
        ImproperlyConfigured: it cannot be imported, is none, or does not take the options.
    """
    options: dict[str, Any] = {}
    if isinstance(given, Mapping):
        options = {str(key).lower(): value for key, value in given.items()}
        given = options.pop("class", None)
    if not isinstance(given, str):
        raise ImproperlyConfigured("A permission is a dotted path, or a dict with CLASS and options.")
    try:
        kind = import_string(given)
    except ImportError as error:
        raise ImproperlyConfigured(f"The permission {given} cannot be imported: {error}") from error
    try:
        made = kind(**options)
    except ImportError as error:
        raise ImproperlyConfigured(f"{given} needs a package that is not installed: {error}") from error
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{given} does not take these options: {error}") from error
    missing = [action.method for action in Action if not callable(getattr(made, action.method, None))]
    if missing:
        raise ImproperlyConfigured(f"The permission {given} has no {', '.join(missing)}.")
    return made  # type: ignore[no-any-return]


def is_asynchronous(permission: Permission, action: Action) -> bool:
    """Whether a method has to be awaited."""
    return inspect.iscoroutinefunction(getattr(permission, action.method))
