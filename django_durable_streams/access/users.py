"""Users: instances of the project's model, or anonymous."""

from __future__ import annotations

from typing import Any

from django.apps import apps

User = Any
"""A user of the project's model, or Django's AnonymousUser."""


def anonymous() -> User:
    """Return an anonymous user."""
    if not apps.is_installed("django.contrib.auth"):
        return AnonymousCaller()
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


class AnonymousCaller:
    """The user of all requests in projects without `django.contrib.auth`."""

    pk = None
    is_authenticated = False
    is_anonymous = True
    is_active = is_staff = is_superuser = False

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Return False: an anonymous caller has no permissions."""
        return False
