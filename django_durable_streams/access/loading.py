"""Makes permission objects from the setting `PERMISSION_CLASSES`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import Action, Permission


def make_permissions(setting: Any) -> list[Permission]:
    """Return the permissions of a setting: one permission, or a list. Any of a list may allow an action.

    Raises:
        ImproperlyConfigured: a permission cannot be made.
    """
    if isinstance(setting, list | tuple) and not setting:
        raise ImproperlyConfigured("PERMISSION_CLASSES is an empty list. Remove it to use Django's model permissions.")
    return [make_permission(entry) for entry in entries(setting)]


def names_permission(setting: Any, wanted: type[Permission]) -> bool:
    """Return whether a setting names a permission class or a subclass of it. No permission is made.

    Raises:
        ImproperlyConfigured: a class cannot be imported.
    """
    classes = (import_permission(entry)[0] for entry in entries(setting))
    return any(isinstance(one, type) and issubclass(one, wanted) for one in classes)


def entries(setting: Any) -> list[Any]:
    """Return the entries of a setting, each for one permission."""
    return list(setting) if isinstance(setting, list | tuple) else [setting]


def make_permission(setting: Any) -> Permission:
    """Return the permission of a dotted path, or of a dict with `CLASS` and options.

    Raises:
        ImproperlyConfigured: the class cannot be imported, lacks methods, or does not accept the options.
    """
    permission_class, options, name = import_permission(setting)
    try:
        permission = permission_class(**options)
    except ImportError as error:
        raise ImproperlyConfigured(f"{name} needs a package that is not installed: {error}") from error
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{name} does not accept these options: {error}") from error
    missing = [action.method for action in Action if not callable(getattr(permission, action.method, None))]
    if missing:
        raise ImproperlyConfigured(f"The permission {name} has no {', '.join(missing)}.")
    return permission  # type: ignore[no-any-return]


def import_permission(setting: Any) -> tuple[Any, dict[str, Any], str]:
    """Return the class of a permission, the options for it, and its dotted path.

    Raises:
        ImproperlyConfigured: the class cannot be imported.
    """
    options: dict[str, Any] = {}
    if isinstance(setting, Mapping):
        options = {str(key).lower(): value for key, value in setting.items()}
        setting = options.pop("class", None)
    if not isinstance(setting, str):
        raise ImproperlyConfigured("A permission must be a dotted path, or a dict with CLASS and options.")
    try:
        return import_string(setting), options, setting
    except (ImportError, TypeError, ValueError) as error:  # a TypeError: it begins with dots
        raise ImproperlyConfigured(f"The permission {setting} cannot be imported: {error}") from error


def is_asynchronous(permission: Permission, action: Action) -> bool:
    """Return whether a permission's method is a coroutine function."""
    return inspect.iscoroutinefunction(getattr(permission, action.method))
