"""The parts that all pages of the streams' admin share: permissions, the stream of a page, and the frame.

Each page checks the permissions on its stream. Django's permissions are those on the model. A subclass may decide for
each stream: it overrides `has_view_permission` and similar methods, or `get_queryset`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db import router
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from ..models import Stream

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Stream]
else:
    _ModelAdmin = admin.ModelAdmin

Pages = TypeVar("Pages", bound="StreamPages")
View = Callable[[Pages, HttpRequest, Stream], HttpResponse]
Page = Callable[[Pages, HttpRequest, str], HttpResponse]


class StreamPages(_ModelAdmin):
    """Pages about streams."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Stream]:
        """Return streams of the database that takes writes, without removed streams whose rows still exist."""
        return super().get_queryset(request).using(self.alias).filter(path__isnull=False)

    @property
    def alias(self) -> str:
        """The database that streams are written to."""
        return router.db_for_write(Stream)

    def may(self, request: HttpRequest, permission: str, stream: Stream | None) -> bool:
        """Return whether a user has the permission `view`, `add`, `change` or `delete` on a stream."""
        if permission == "add":
            return self.has_add_permission(request)
        allowed: bool = getattr(self, f"has_{permission}_permission")(request, stream)
        return allowed

    def visible(self, request: HttpRequest, ids: Iterable[int]) -> dict[int, Stream]:
        """Return the streams that a user may see, of a list of ids. Pages do not name other streams."""
        streams = self.get_queryset(request).filter(pk__in=ids).defer("lineage")
        return {stream.pk: stream for stream in streams if self.may(request, "view", stream)}

    def url(self, name: str, *args: object) -> str:
        """Return the URL of one of the pages, such as `change` or `append`."""
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{name}", args=args, current_app=self.admin_site.name)

    def admin_form(self, form: Form, fieldsets: Any) -> helpers.AdminForm:
        """Return a form with the admin's layout."""
        return helpers.AdminForm(form, fieldsets, {}, (), model_admin=self)  # type: ignore[arg-type]

    def render(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """Return a page in the admin's frame."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/durable_streams/stream/{template}.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": title,
                "has_view_permission": self.has_view_permission(request),
                **context,
            },
        )


def of_stream(*permissions: str) -> Callable[[View[Pages]], Page[Pages]]:
    """Make a view of one stream from a method. The user needs the permissions on this stream.

    Users without the permissions get 403, whether or not the stream exists. Other users get a message if it is missing.
    """

    def decorate(view: View[Pages]) -> Page[Pages]:
        @wraps(view)
        def page(pages: Pages, request: HttpRequest, object_id: str) -> HttpResponse:
            stream = pages.get_object(request, object_id)
            if not all(pages.may(request, permission, stream) for permission in permissions):
                raise PermissionDenied
            if stream is None:
                pages.message_user(request, _("This stream does not exist any more."), messages.WARNING)
                return HttpResponseRedirect(pages.url("changelist"))
            return view(pages, request, stream)

        return page

    return decorate
