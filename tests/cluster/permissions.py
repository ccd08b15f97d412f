"""Permissions of a project that query the database in each of the ways that a permission can."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth import get_user_model
from django.db import Error

from django_durable_streams.permissions import AccessRequest, AllowAll


def _wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any) -> Any:
        return method(*args)

    del call.__wrapped__  # it does not look asynchronous
    return call


class Asynchronous(AllowAll):
    in_memory = False

    async def can_read(  # type: ignore[override]
        self, user: Any, path: str, request: AccessRequest
    ) -> bool:
        return not await get_user_model().objects.filter(username="nobody").aexists()


class Wrapped(AllowAll):
    in_memory = False

    @_wrapped
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return not await get_user_model().objects.filter(username="nobody").aexists()


class Synchronous(AllowAll):
    in_memory = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return not get_user_model().objects.filter(username="nobody").exists()


class FailsClosed(AllowAll):
    """It denies what it cannot find out."""

    in_memory = False

    async def can_read(  # type: ignore[override]
        self, user: Any, path: str, request: AccessRequest
    ) -> bool:
        try:
            return not await get_user_model().objects.filter(username="nobody").aexists()
        except Error:
            return False
