"""An admin that asks for permissions on each stream, a backend that grants them by the path, and its URLs."""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest
from django.urls import path

from django_durable_streams.admin import StreamAdmin
from django_durable_streams.models import Stream

GRANTED = "mine/"
"""What the paths begin with on which users have what they were granted."""


class ByPath(ModelBackend):
    """Grants what a user's first name lists, such as "view change": on the streams below `GRANTED` only."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        action = perm.rpartition(".")[2].partition("_")[0]
        if action not in user_obj.first_name.split():
            return False
        return obj is None or (obj.path is not None and obj.path.startswith(GRANTED))

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return bool(user_obj.first_name)


class ByObject(StreamAdmin):
    """Asks Django's backends about each stream."""

    def has_view_permission(self, request: HttpRequest, obj: Stream | None = None) -> bool:
        return self._has(request, "view", obj) or self._has(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: Stream | None = None) -> bool:
        return self._has(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Stream | None = None) -> bool:
        return self._has(request, "delete", obj)

    def _has(self, request: HttpRequest, action: str, obj: Stream | None) -> bool:
        return request.user.has_perm(f"durable_streams.{action}_stream", obj)


site = AdminSite(name="admin")
site.register(Stream, ByObject)
urlpatterns = [path("admin/", site.urls)]
