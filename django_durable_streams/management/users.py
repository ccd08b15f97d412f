"""Users whom a command names."""

from __future__ import annotations

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.core.management.base import CommandError

from ..access.users import User


def find_user(name: str) -> User:
    """Return the user with a name or, if there is none, with a primary key.

    Raises:
        CommandError: there is no such user.
    """
    if not apps.is_installed("django.contrib.auth"):
        raise CommandError("This project has no users: django.contrib.auth is not in INSTALLED_APPS.")
    model = get_user_model()
    for field in (model.USERNAME_FIELD, "pk"):
        try:
            return model._default_manager.get(**{field: name})
        except (ObjectDoesNotExist, ValueError, ValidationError):
            continue
    raise CommandError(f"There is no user with the name or primary key {name}.")
