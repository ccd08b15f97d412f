"""Admins that ask for permissions on each row, a backend that grants them by path or name, and their URLs."""

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.backends import ModelBackend
from django.db.models import Model
from django.http import HttpRequest
from django.urls import path

from django_durable_streams.admin import StreamAdmin, SubscriptionAdmin
from django_durable_streams.models import Stream, Subscription

GRANTED = "mine"
"""What paths and names begin with on which users have what they were granted."""


class ByPath(ModelBackend):
    """Grants what a user's first name lists, such as "view change": on rows that begin with `GRANTED` only.

    On subscriptions it grants what the last name lists.
    """

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        action, _, model = perm.rpartition(".")[2].partition("_")
        granted = user_obj.last_name if model == "subscription" else user_obj.first_name
        if action not in granted.split():
            return False
        name = obj.path if isinstance(obj, Stream) else str(obj)
        return obj is None or (name is not None and name.startswith(GRANTED))

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return bool(user_obj.first_name or user_obj.last_name)


class ByObject:
    """Asks Django's backends about each row."""

    opts: Any

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._has(request, "view", obj) or self._has(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._has(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._has(request, "delete", obj)

    def _has(self, request: HttpRequest, action: str, obj: Model | None) -> bool:
        return request.user.has_perm(f"durable_streams.{action}_{self.opts.model_name}", obj)


class Streams(ByObject, StreamAdmin):
    """Streams by path."""


class Subscriptions(ByObject, SubscriptionAdmin):
    """Subscriptions by name."""


site = AdminSite(name="admin")
site.register(Stream, Streams)
site.register(Subscription, Subscriptions)
urlpatterns = [path("admin/", site.urls)]
