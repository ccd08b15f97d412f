"""What people do with subscriptions here: pause, resume, try again, set cursors, delete.

A GET changes nothing. Each change is an entry in the history of the subscription, if possible in its transaction.
Entries name no streams, because readers of the history may not be allowed to know them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin import helpers
from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ...models import Subscription
from ...protocol.errors import DurableStreamsError
from ...runtime.database_errors import FailureKind, diagnose
from ...subscriptions import operating
from ...subscriptions.consumers import replaying
from ...subscriptions.consumers.declarations import ConsumerError
from ...subscriptions.selection import Selection
from ...subscriptions.service import wake_delivery
from ..base import of_row
from .detail_view import Declared, DetailView
from .forms import ResetForm
from .links_page import LinkRow, link_row

logger = logging.getLogger(__name__)


class Action(NamedTuple):
    """Something that one click does."""

    function: Callable[..., Any]
    """Gets the name of a subscription and the alias of the database, and returns whether it has changed anything."""
    log: Any
    """The entry in the history."""
    done: Any
    nothing: Any
    """What the user reads if there was nothing to change. Both have the subscription's name."""


PAUSE = Action(
    operating.pause,
    gettext_lazy("Paused."),
    gettext_lazy("Paused %s. Whatever is in progress is finished. New data waits until you resume it."),
    gettext_lazy("Nothing has changed: %s was paused already."),
)
RESUME = Action(
    operating.resume,
    gettext_lazy("Resumed."),
    gettext_lazy("Resumed %s."),
    gettext_lazy("Nothing has changed: %s was not paused."),
)
RETRY = Action(
    operating.retry,
    gettext_lazy("Tried again."),
    gettext_lazy("The next attempt of %s begins now."),
    gettext_lazy("Nothing of %s waits for another attempt."),
)


class ActionViews(DetailView):
    """Pages that change subscriptions."""

    @of_row("view", "change")
    def pause_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Pause a subscription."""
        return self._click(request, subscription, PAUSE)

    @of_row("view", "change")
    def resume_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """End a pause."""
        return self._click(request, subscription, RESUME)

    @of_row("view", "change")
    def retry_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Make the next attempt now, also of one stream only, and let stopped streams of a consumer go on."""
        if "link" not in request.POST:
            return self._click(request, subscription, RETRY)
        link = self._link(request, subscription, request.POST["link"])
        if link is None:
            return self._to_page(subscription)
        action = RETRY._replace(log=_("Tried again on one stream."))
        return self._click(request, subscription, action, Selection(link_id=link.id))

    def _click(self, request: HttpRequest, subscription: Subscription, action: Action, *more: Any) -> HttpResponse:
        if request.method == "POST":
            changed = self.act(request, [subscription], action, *more)
            if changed is not None:
                text = action.done if changed else action.nothing
                self.message_user(request, text % subscription, messages.SUCCESS if changed else messages.WARNING)
        return self._to_page(subscription)

    def act(
        self, request: HttpRequest, subscriptions: Iterable[Subscription], action: Action, *more: Any
    ) -> int | None:
        """Do something with subscriptions, in one transaction each, and return how many were changed.

        Failures become messages. None: all have failed.
        """
        results: list[bool] = []
        for subscription in subscriptions:
            try:
                done = operating.perform(self.alias, self._act_and_log, request, subscription, action, *more)
            except (DurableStreamsError, ConsumerError) as error:
                self._report_failure(request, subscription, error)
            else:
                results.append(done)
        wake_delivery(self.alias)
        return sum(results) if results else None

    def _act_and_log(self, request: HttpRequest, subscription: Subscription, action: Action, *more: Any) -> bool:
        is_changed = bool(action.function(subscription.name, self.alias, *more))
        if is_changed:
            self.log_change(request, subscription, str(action.log))
        return is_changed

    def _report_failure(self, request: HttpRequest, subscription: Subscription, error: Exception) -> None:
        # Django capitalises the first letter of a message, so it must not be that of an id.
        text = _("Failed for %(name)s: %(reason)s") % {"name": subscription, "reason": _reason(error)}
        self.message_user(request, text, messages.ERROR)

    def _to_page(self, subscription: Subscription) -> HttpResponse:
        return HttpResponseRedirect(self.url("change", subscription.pk))

    def _link(self, request: HttpRequest, subscription: Subscription, link_id: str) -> LinkRow | None:
        """Return a link whose stream the user may know. A message says that there is none."""
        link = link_row(subscription, link_id, self.stream_names(request), self.alias)
        if link is None:
            self.message_user(request, _("This stream is not linked any more."), messages.WARNING)
        return link

    @of_row("view", "change")
    def reset_view(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        """Set the cursors of a subscription, or the one of a link."""
        consumer = self.consumer(subscription)
        if subscription.kind == Subscription.Kind.CONSUMER and consumer is None:
            text = _("The code has no consumer %s, so no worker would handle the messages.") % subscription
            self.message_user(request, text, messages.ERROR)
            return self._to_page(subscription)
        link_id = request.POST.get("link", request.GET.get("link", ""))
        link = self._link(request, subscription, link_id) if link_id else None
        if link_id and link is None:
            return self._to_page(subscription)
        is_submitted = request.method == "POST"
        form = ResetForm(request.POST if is_submitted else None, of_link=link is not None)
        if is_submitted and form.is_valid() and self._reset(request, subscription, form, link):
            return self._to_page(subscription)
        return self.render(
            request,
            "reset",
            _("Reset cursors"),
            subscription=subscription,
            original=subscription,
            subtitle=str(subscription),
            here=_("Reset"),
            declared=Declared.by(consumer),
            link=link,
            form=form,
            adminform=self.admin_form(form, [(None, {"fields": [*form.fields]})]),
        )

    def _reset(self, request: HttpRequest, subscription: Subscription, form: ResetForm, link: LinkRow | None) -> bool:
        """Set cursors, and return whether that has worked. Errors are shown in the form."""
        names = self.stream_names(request)
        which = Selection(form.cleaned_data.get("pattern", ""), None if link is None else link.id, names.of)
        consumer, alias = self.consumer(subscription), self.alias
        try:
            if consumer is None:
                count = operating.set_cursors(subscription.name or "", form.chosen, which, alias)
            else:
                count = replaying.replay(consumer, form.chosen, which, alias)
        except (DurableStreamsError, ConsumerError) as error:
            form.add_error(None, _reason(error))
            return False
        except Exception as error:  # the reset function of the consumer is code of the project
            if isinstance(error, Error) and diagnose(error) is not FailureKind.BUSY:
                raise
            logger.exception("The cursors of %s could not be reset in the admin.", subscription)
            form.add_error(None, _("Nothing was changed: %s") % repr(error)[:500])
            return False
        wake_delivery(alias)
        text = ngettext("The cursor of %d stream is set.", "The cursors of %d streams are set.", count) % count
        if count:
            facts = {"count": count, "start": form.cleaned_data["start"], "offset": form.cleaned_data["offset"]}
            self.log_change(request, subscription, _("Reset %(count)d cursors: %(start)s %(offset)s") % facts)
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)
        return True

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete a subscription after a confirmation."""
        return self._delete_page(request, object_id)

    @of_row("delete")
    def _delete_page(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        if request.method == "POST":
            deleted = self.delete_all(request, [subscription])
            return HttpResponseRedirect(self.url("changelist")) if deleted else self._to_page(subscription)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        return self.confirm_deletion(request, [subscription], original=subscription, here=_("Delete"))

    def confirm_deletion(self, request: HttpRequest, subscriptions: list[Subscription], **context: Any) -> HttpResponse:
        """Return the page that asks whether to delete subscriptions."""
        return self.render(
            request,
            "delete",
            _("Delete subscriptions"),
            subscriptions=subscriptions,
            count=len(subscriptions),
            action_checkbox_name=helpers.ACTION_CHECKBOX_NAME,
            **context,
        )

    def delete_all(self, request: HttpRequest, subscriptions: list[Subscription]) -> int:
        """Delete subscriptions in one transaction each, and return how many. Failures become messages."""
        count = 0
        for subscription in subscriptions:
            try:
                operating.perform(self.alias, self._delete_and_log, request, subscription)
            except (DurableStreamsError, ConsumerError) as error:
                self._report_failure(request, subscription, error)
            else:
                count += 1
        if count:
            wake_delivery(self.alias)
            text = ngettext("%d subscription was deleted.", "%d subscriptions were deleted.", count) % count
            self.message_user(request, text, messages.SUCCESS)
        return count

    def _delete_and_log(self, request: HttpRequest, subscription: Subscription) -> None:
        operating.delete(subscription.name or "", self.alias)
        self.log_deletions(request, [subscription])  # type: ignore[arg-type]


def _reason(error: Exception) -> str:
    return error.detail if isinstance(error, DurableStreamsError) else str(error)
