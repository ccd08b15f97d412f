"""Who a user is: of the project's model, or nobody."""

from __future__ import annotations

from typing import Any

from django.apps import apps

User = Any
"""A user of the project's model, or Django's AnonymousUser."""


def anonymous() -> User:
    """Return a user who is nobody."""
    if not apps.is_installed("django.contrib.auth"):
        return AnonymousCaller()
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


class AnonymousCaller:
    """Stands for everybody in projects without users."""

    pk = None
    is_authenticated = False
    is_anonymous = True
    is_active = is_staff = is_superuser = False

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Nobody has any."""
        return False
