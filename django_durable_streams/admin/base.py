"""What all pages of the streams' admin share: who may see them, which stream they are of, and their frame.

Whatever a page says of a stream, or does to it, is by the permissions on that very stream. Django's own decide by the
model; a subclass that overrides `has_view_permission` and its siblings, or `get_queryset`, decides by the stream.
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
        """Leave out what is only waiting for its rows to go. Streams are read where they are written."""
        return super().get_queryset(request).using(self.alias).filter(path__isnull=False)

    @property
    def alias(self) -> str:
        """The database that streams are written to."""
        return router.db_for_write(Stream)

    def may(self, request: HttpRequest, permission: str, stream: Stream | None) -> bool:
        """Whether a user has a permission, `view`, `add`, `change` or `delete`, on a stream."""
        if permission == "add":
            return self.has_add_permission(request)
        allowed: bool = getattr(self, f"has_{permission}_permission")(request, stream)
        return allowed

    def visible(self, request: HttpRequest, ids: Iterable[int]) -> dict[int, Stream]:
        """Return those of some streams that a user may see, by their ids: others are not even named."""
        found = self.get_queryset(request).filter(pk__in=ids).defer("lineage")
        return {stream.pk: stream for stream in found if self.may(request, "view", stream)}

    def url(self, name: str, *args: object) -> str:
        """Return the URL of one of the pages, such as `change` or `append`."""
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{name}", args=args, current_app=self.admin_site.name)

    def admin_form(self, form: Form, fieldsets: Any) -> helpers.AdminForm:
        """Return a form as the admin lays it out."""
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
    """Make a view of one stream from a function, for those who have some permissions on it.

    Who may not is told so whether or not there is such a stream; others are told where there is none.
    """

    def decorate(view: View[Pages]) -> Page[Pages]:
        @wraps(view)
        def page(pages: Pages, request: HttpRequest, object_id: str) -> HttpResponse:
            stream = pages.get_object(request, object_id)
            if not all(pages.may(request, permission, stream) for permission in permissions):
                raise PermissionDenied
            if stream is None:
                pages.message_user(request, _("There is no such stream any more."), messages.WARNING)
                return HttpResponseRedirect(pages.url("changelist"))
            return view(pages, request, stream)

        return page

    return decorate
