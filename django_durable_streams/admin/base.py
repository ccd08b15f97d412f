"""The parts that all pages of the admin share: permissions, the row of a page, and the frame.

Each page checks the permissions on its row. Django's permissions are those on the model. A subclass may decide for each
row: it overrides `has_view_permission` and similar methods, or `get_queryset`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db import router
from django.db.models import Model, QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..conf import config
from ..models import Stream

Row = TypeVar("Row", bound=Model)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin
else:

    class _ModelAdmin(admin.ModelAdmin, Generic[Row]):
        pass


class Pages(_ModelAdmin[Row]):
    """Pages about rows of one model."""

    templates: ClassVar[str]
    """The folder of the pages' templates, below `admin/durable_streams/`."""

    class Media:
        css = {"all": ("durable_streams/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Row]:
        """Return rows of the database that takes writes."""
        return super().get_queryset(request).using(self.alias)

    @property
    def alias(self) -> str:
        """The database that streams are written to."""
        return router.db_for_write(Stream)

    def may(self, request: HttpRequest, permission: str, row: Row | None) -> bool:
        """Return whether a user has the permission `view`, `add`, `change` or `delete` on a row."""
        if permission == "add":
            return self.has_add_permission(request)
        allowed: bool = getattr(self, f"has_{permission}_permission")(request, row)
        return allowed

    def url(self, name: str, *args: object) -> str:
        """Return the URL of one of the pages, such as `change` or `append`."""
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{name}", args=args, current_app=self.admin_site.name)

    def row_urls(self, views: Mapping[str, Any]) -> list[URLPattern]:
        """Return the URLs of pages of one row, from their views by name."""
        prefix = f"{self.opts.app_label}_{self.opts.model_name}"
        return [path(f"<str:object_id>/{name}/", view, name=f"{prefix}_{name}") for name, view in views.items()]

    def admin_form(self, form: Form, fieldsets: Any) -> helpers.AdminForm:
        """Return a form with the admin's layout."""
        return helpers.AdminForm(form, fieldsets, {}, (), model_admin=self)  # type: ignore[arg-type]

    def render(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """Return a page in the admin's frame."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/durable_streams/{self.templates}/{template}.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": title,
                "has_view_permission": self.has_view_permission(request),
                **context,
            },
        )


class StreamPages(Pages[Stream]):
    """Pages about streams."""

    templates = "stream"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Stream]:
        """Return streams, without removed ones whose rows still exist."""
        return super().get_queryset(request).filter(path__isnull=False)

    def may(self, request: HttpRequest, permission: str, row: Stream | None) -> bool:
        """Return whether a user has a permission on a stream. The registry names all streams, so it asks for more."""
        allowed = super().may(request, permission, row)
        if allowed and row is not None and row.path == config().registry_path and permission not in ("add", "delete"):
            return self.may_name_all(request)
        return allowed

    def may_name_all(self, request: HttpRequest) -> bool:
        """Return whether a user may learn of the paths of all streams, which the registry (`REGISTRY_PATH`) has.

        Asks for the permission to view streams. Override this where you override `get_queryset` or
        `has_view_permission`: they may hide streams from the user, so the answer is then no.
        """
        own = type(self)
        is_unrestricted = own.get_queryset is StreamPages.get_queryset
        is_unrestricted = is_unrestricted and own.has_view_permission is admin.ModelAdmin.has_view_permission
        return is_unrestricted and self.has_view_permission(request)

    def visible(self, request: HttpRequest, ids: Iterable[int]) -> dict[int, Stream]:
        """Return the streams that a user may see, of a list of ids. Pages do not name other streams."""
        streams = self.get_queryset(request).filter(pk__in=ids).defer("lineage")
        return {stream.pk: stream for stream in streams if self.may(request, "view", stream)}

    def may_name(self, request: HttpRequest, path_without_stream: str) -> bool:
        """Return whether a user may learn of a path without a stream, as a subscription may have it.

        Asks for the permission to view a stream there. Override this where you override `get_queryset`: nobody can
        tell whether a query would find a stream that does not exist, so the answer is then no.
        """
        is_unrestricted = type(self).get_queryset is StreamPages.get_queryset
        return is_unrestricted and self.may(request, "view", Stream(path=path_without_stream))


PagesT = TypeVar("PagesT", bound=Pages[Any])
View = Callable[[PagesT, HttpRequest, Any], HttpResponse]
Page = Callable[[PagesT, HttpRequest, str], HttpResponse]


def of_row(*permissions: str) -> Callable[[View[PagesT]], Page[PagesT]]:
    """Make a view of one row from a method. The user needs the permissions on this row.

    Users without the permissions get 403, whether or not the row exists. Other users get a message if it is missing.
    """

    def decorate(view: View[PagesT]) -> Page[PagesT]:
        @wraps(view)
        def page(pages: PagesT, request: HttpRequest, object_id: str) -> HttpResponse:
            row = pages.get_object(request, object_id)
            if not all(pages.may(request, permission, row) for permission in permissions):
                raise PermissionDenied
            if row is None:
                text = _("This %s does not exist any more.") % pages.opts.verbose_name
                pages.message_user(request, text, messages.WARNING)
                return HttpResponseRedirect(pages.url("changelist"))
            return view(pages, request, row)

        return page

    return decorate
