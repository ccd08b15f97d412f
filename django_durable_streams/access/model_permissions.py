"""Django's model permissions, and the two simplest other classes: everybody reads, and everybody does everything."""

from __future__ import annotations

from .access_request import AccessRequest
from .base import Permission, for_everybody
from .users import User

ADD = "durable_streams.add_stream"
VIEW = "durable_streams.view_stream"
CHANGE = "durable_streams.change_stream"
DELETE = "durable_streams.delete_stream"
SUBSCRIBE = "durable_streams.change_subscription"

_HELD_PERMISSIONS = "_durable_streams_permissions"


class ModelPermissions(Permission):
    """Uses Django's permissions on the model `Stream`: add to create, view to read and to list, delete to delete, and
    change to append and to close.

    Subscriptions need the permission to change the model `Subscription`. The permissions come from all
    `AUTHENTICATION_BACKENDS`. They are loaded together with the user.
    """

    in_memory = True

    def prepare(self, user: User) -> None:
        held = frozenset(name for name in (ADD, VIEW, CHANGE, DELETE, SUBSCRIBE) if user.has_perm(name))
        setattr(user, _HELD_PERMISSIONS, held)

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return _has(user, ADD, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return _has(user, VIEW, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return _has(user, CHANGE, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return _has(user, CHANGE, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return _has(user, DELETE, request)

    def can_subscribe(self, user: User, subscription_id: str, request: AccessRequest) -> bool:
        return _has(user, SUBSCRIBE, request)

    def can_list(self, user: User, prefix: str, request: AccessRequest) -> bool:
        return _has(user, VIEW, request)


def _has(user: User, permission: str, request: AccessRequest) -> bool:
    held = getattr(user, _HELD_PERMISSIONS, None)
    has = permission in held if held is not None else bool(user.has_perm(permission))
    if not has:
        request.explain(f"The user has no permission {permission}.")
    return has


class ReadOnly(ModelPermissions):
    """Allows everybody to read. All other actions need Django's model permissions."""

    @for_everybody
    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return True


class AllowAll(Permission):
    """Allows everything to everybody. For development, and for servers behind another access control."""

    in_memory = True
    needs_user = False
    varies_on = ()

    @for_everybody
    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return True

    can_read = can_append = can_close = can_delete = can_create

    @for_everybody
    def can_subscribe(self, user: User, subscription_id: str, request: AccessRequest) -> bool:
        return True

    @for_everybody
    def can_list(self, user: User, prefix: str, request: AccessRequest) -> bool:
        return True
