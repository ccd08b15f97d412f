"""Pages that change streams: forms to create, append, close, fork and keep. The store decides on what they say."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from ..api import transactions
from ..models import Stream
from ..protocol.errors import DurableStreamsError
from ..store.operations import Append, Appended
from .base import of_row
from .detail_views import DetailViews
from .forms import AppendForm, CreateForm, ForkForm, StreamForm
from .retention import KeepForm
from .states import State


class EditViews(DetailViews):
    """Pages that change streams."""

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Create a stream."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        is_submitted = request.method == "POST"
        from_link = CreateForm.initial_from_query(request.GET)
        form = CreateForm(request.POST, request.FILES) if is_submitted else CreateForm(initial=from_link)
        if form.is_valid():
            try:
                with transaction.atomic(using=self.alias):
                    stream = transactions.create(form.operation(), self.alias, Stream)
                    self.log_addition(request, stream, _("Created, with %s.") % filesizeformat(stream.tail_position))
            except DurableStreamsError as error:
                form.refuse(error)
            else:
                return self.response_add(request, stream)
        return self._form_page(
            request,
            form,
            _("Add stream"),
            [
                (None, {"fields": ["path", "content_type"]}),
                (_("Lifetime"), {"fields": ["ttl", "expires_at"]}),
                (_("First message"), {"fields": ["text", "file"]}),
            ],
            submit=_("Create"),
            is_popup=IS_POPUP_VAR in request.POST or IS_POPUP_VAR in request.GET,
        )

    @of_row("view", "add")
    def fork_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Fork a stream."""
        is_submitted = request.method == "POST"
        suggested = {"path": f"{stream.path}-fork"[: Stream._meta.get_field("path").max_length]}
        from_link = ForkForm.initial_from_query(request.GET)
        form = ForkForm(request.POST) if is_submitted else ForkForm(initial={**suggested, **from_link})
        if form.is_valid():
            try:
                with transaction.atomic(using=self.alias):
                    fork = transactions.create(form.operation(stream), self.alias, Stream)
                    cut = fork.offset_at(fork.fork_position or 0)
                    # The history has ids instead of paths, because a user may see only one of the two streams.
                    where = {"source": stream.pk, "fork": fork.pk, "offset": cut}
                    self.log_addition(request, fork, _("Forked from stream %(source)d at %(offset)s.") % where)
                    self.log_change(request, stream, _("Forked at %(offset)s as stream %(fork)d.") % where)
            except DurableStreamsError as error:
                form.refuse(error)
            else:
                self.message_user(request, _("The fork %s was created.") % fork.path, messages.SUCCESS)
                return HttpResponseRedirect(self.url("change", fork.pk))
        return self._form_page(
            request,
            form,
            _("Fork stream"),
            [
                (None, {"fields": ["path", "offset"]}),
                (_("Lifetime"), {"fields": ["ttl", "expires_at"]}),
            ],
            submit=_("Fork"),
            lead=_("A fork begins with the data of %s, without a copy. Later appends change only one of them.")
            % stream.path,
            stream=stream,
            original=stream,
            subtitle=str(stream),
            here=_("Fork"),
        )

    @of_row("view", "change")
    def append_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Append a message from the form of a stream's page."""
        if request.method != "POST":
            return HttpResponseRedirect(self.url("change", stream.pk))
        form = AppendForm(stream.content_type, request.POST, request.FILES)
        if form.is_valid():
            try:
                result = self._append(request, stream, form)
            except DurableStreamsError as error:
                form.refuse(error)
            else:
                message = _("Appended and closed.") if result.closed else _("Appended.")
                self.message_user(request, message, messages.SUCCESS)
                return HttpResponseRedirect(self.url("change", stream.pk) + "#ds-end")
        if State.of(stream) is not State.OPEN:  # then the page has no form that could show the errors
            for refusal in form.non_field_errors():
                self.message_user(request, str(refusal), messages.ERROR)
            return HttpResponseRedirect(self.url("change", stream.pk))
        return self.stream_page(request, stream, form)

    def _append(self, request: HttpRequest, stream: Stream, form: AppendForm) -> Appended:
        with transaction.atomic(using=self.alias):
            operation = form.operation(stream)
            result = transactions.apply(operation, self.alias)
            assert isinstance(result, Appended)
            facts = {"size": filesizeformat(len(operation.data)), "offset": result.offset}
            text = _("Appended %(size)s and closed at %(offset)s.") if result.closed else _("Appended %(size)s.")
            self.log_change(request, stream, text % facts)
        return result

    @of_row("view", "change")
    def close_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Close a stream after a confirmation."""
        if request.method == "POST":
            if self.close_streams(request, [stream]):
                self.message_user(request, _("The stream %s was closed.") % stream.path, messages.SUCCESS)
            return HttpResponseRedirect(self.url("change", stream.pk))
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        return self.render(
            request,
            "close_confirmation",
            _("Close stream"),
            streams=[stream],
            count=1,
            original=stream,
            here=_("Close"),
        )

    @of_row("view", "change")
    def keep_view(self, request: HttpRequest, stream: Stream) -> HttpResponse:
        """Change the lifetime and the retention of a stream."""
        if not State.of(stream).is_alive:
            return HttpResponseRedirect(self.url("change", stream.pk))
        data = request.POST if request.method == "POST" else None
        form = KeepForm(data, initial=KeepForm.initial_of(stream))
        if form.is_valid():
            try:
                with transaction.atomic(using=self.alias):
                    for note in form.save(stream):
                        self.log_change(request, stream, note)
            except DurableStreamsError as error:
                form.refuse(error)
            else:
                self.message_user(request, _("Saved."), messages.SUCCESS)
                return HttpResponseRedirect(self.url("change", stream.pk))
        return self._form_page(
            request,
            form,
            _("Lifetime and retention"),
            [(_("Lifetime"), {"fields": form.LIFETIME}), (_("Retention"), {"fields": form.RETENTION})],
            submit=_("Save"),
            lead=_("Data is trimmed as soon as one of the rules allows it. Forks keep what they have."),
            stream=stream,
            original=stream,
            subtitle=str(stream),
            here=_("Lifetime and retention"),
        )

    def close_streams(self, request: HttpRequest, streams: list[Stream]) -> int:
        """Close streams in one transaction each, and return how many were open. Failures become messages."""
        closed = 0
        for stream in streams:
            try:
                if not self.may(request, "change", stream):
                    raise PermissionDenied
                with transaction.atomic(using=self.alias):
                    closing = Append(stream.path, stream.content_type, b"", close=True, stream_id=stream.pk)
                    transactions.apply(closing, self.alias)
                    self.log_change(request, stream, _("Closed."))
                closed += not stream.closed
            except DurableStreamsError as error:
                self.message_user(request, f"{stream}: {error.detail}", messages.ERROR)
        return closed

    def _form_page(
        self, request: HttpRequest, form: StreamForm, title: str, fieldsets: Any, **context: Any
    ) -> HttpResponse:
        return self.render(
            request,
            "form",
            title,
            form=form,
            adminform=self.admin_form(form, fieldsets),
            has_file_field=form.is_multipart(),
            **{**context, "media": self.media + form.media},
        )
