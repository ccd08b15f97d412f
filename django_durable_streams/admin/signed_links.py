"""The page that signs a link for reading one stream. The permission `SignedURLs` has to accept such links."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import clock
from ..access.base import Action
from ..access.loading import names_permission
from ..access.signed import SignedURLs, signed_url
from ..conf import config
from ..links import stream_url
from ..models import Stream
from .base import StreamPages, of_row
from .states import State

HOUR = 3600

LIFETIMES = {
    HOUR: gettext_lazy("1 hour"),
    24 * HOUR: gettext_lazy("1 day"),
    7 * 24 * HOUR: gettext_lazy("7 days"),
    30 * 24 * HOUR: gettext_lazy("30 days"),
}
"""Names of the lifetimes that a person can choose, by their seconds."""


class SignForm(forms.Form):
    """The lifetime of a link."""

    seconds = forms.TypedChoiceField(label=gettext_lazy("Valid for"), choices=list(LIFETIMES.items()), coerce=int)


class SignedLinkView(StreamPages):
    """The page that signs links, and the URL of a stream."""

    def has_sign_permission(self, request: HttpRequest, obj: Stream | None = None) -> bool:
        """Return whether a user may hand out links for reading a stream to people without a login.

        Users who may view and change the stream may, if the project accepts signed URLs. Override this to decide
        otherwise.
        """
        return (
            self.has_view_permission(request, obj)
            and self.has_change_permission(request, obj)
            and names_permission(config().permission_classes, SignedURLs)
        )

    def public_url(self, request: HttpRequest, stream: Stream) -> str:
        """Return the URL of a stream, with the host of a request unless the settings name one."""
        return request.build_absolute_uri(stream_url(stream))

    @of_row("view", "sign")
    def sign_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Ask for a lifetime, and show a link that was signed for it."""
        link = until = ""
        form = SignForm(request.POST if request.method == "POST" else None)
        if State.of(stream).is_alive and form.is_valid():
            end = clock.now() + timedelta(seconds=form.cleaned_data["seconds"])
            until = date_format(timezone.localtime(end), "DATETIME_FORMAT")
            link = request.build_absolute_uri(signed_url(stream.path or "", Action.READ.value, expires=end))
            self.log_change(request, stream, _("Signed a link for reading, valid until %s.") % until)
        return self.render(
            request,
            "signed_link",
            _("Signed link"),
            form=form,
            adminform=self.admin_form(form, [(None, {"fields": ["seconds"]})]),
            link=link,
            until=until,
            stream=stream,
            original=stream,
            subtitle=str(stream),
            here=_("Signed link"),
        )
