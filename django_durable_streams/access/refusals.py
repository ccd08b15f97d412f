"""The line in the log about a refused request, the same for streams and for chats. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..runtime.printable import loggable
from .access_request import AccessRequest
from .base import Action, Permission
from .rest_framework import RestFramework
from .users import User

PUBLIC_MODULE = "django_durable_streams.permissions"
"""The module from which settings import the classes of this package."""

logger = logging.getLogger("django_durable_streams.access")


def log_refusal(
    action: str, path: str, user: User, request: AccessRequest, deciders: Iterable[str], reasons: Iterable[str] = ()
) -> None:
    """Log a refused request.

    Args:
        action: the refused action, such as `read`.
        path: the path of a stream, the id of a subscription, or the prefix of a listing.
        user: the user as the server sees it. None counts as anonymous.
        request: the request, with the reasons of the classes that explain.
        deciders: the dotted paths of the classes that have refused it. A class without a reason is named, too.
        reasons: further sentences, without secrets and line breaks. Empty ones are left out.
    """
    name = user.pk if getattr(user, "is_authenticated", False) else "anonymous"
    names = ", ".join(deciders)
    logger.warning(
        "%s of %s is refused to user %s at %s%s.%s",
        action, loggable(path) or "all streams", name, loggable(request.address), f" by {names}" if names else "",
        "".join(f" {reason}" for reason in (*request.reasons, *filter(None, reasons))), extra=request.log_fields,
    )  # fmt: skip


def explain_missing_methods(permissions: Iterable[Permission], action: Action, request: AccessRequest) -> None:
    """Note which of the permissions that have refused an action have no method for it, perhaps because of a wrong name.

    A class of this package has such a gap on purpose.
    """
    for one in map(decider, permissions):
        kind = type(one)
        if getattr(kind, action.method, None) is not getattr(Permission, action.method):
            continue
        explain = request.explain_default if kind.__module__.startswith(f"{__package__}.") else request.explain
        explain(f"{kind.__name__} has no {action.method}, so it refuses.{_unused_methods(kind)}")


def _unused_methods(kind: type[Permission]) -> str:
    methods = {action.method for action in Action}
    others = [name for name in dir(kind) if name.startswith("can_") and name not in methods]
    return f" Nothing calls its {', '.join(others)}." if others else ""


def decider(permission: Permission) -> Permission:
    """Return the permission that decides: the one inside of a `RestFramework`."""
    return decider(permission.permission) if isinstance(permission, RestFramework) else permission


def name_of(permission: Permission) -> str:
    """Return the dotted path of a permission's class, with the one inside of a `RestFramework`, which decides."""
    name = dotted_path(type(permission))
    return f"{name}({name_of(permission.permission)})" if isinstance(permission, RestFramework) else name


def dotted_path(kind: type) -> str:
    """Return the module and the name of a class: two apps of a project may have classes of one name.

    The classes of this package have the path that settings name.
    """
    module = PUBLIC_MODULE if kind.__module__.startswith(f"{__package__}.") else kind.__module__
    return f"{module}.{kind.__qualname__}"
