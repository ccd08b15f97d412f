"""The page of a subscription: its configuration, its present wake, its errors, and a page of its links."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed

from ...models import Stream, Subscription
from ...subscriptions.consumers import replaying
from ...subscriptions.consumers.batch_size import BatchSize
from ...subscriptions.consumers.declarations import Consumer, of_stored_name
from .. import moments
from ..base import Pages, of_row
from .links_page import ERROR_LENGTH, links_page
from .states import State, is_ahead, with_link_facts
from .stream_names import StreamNames, only_path


class Declared(NamedTuple):
    """What pages show of a consumer. The consumer itself is callable, and templates call what they can."""

    handler: str
    """Where the code has it."""
    batch_size: BatchSize
    max_attempts: int
    on_failure: str
    has_reset: bool

    @classmethod
    def by(cls, consumer: Consumer | None) -> Declared | None:
        """Return the facts of a consumer, if the code has it."""
        if consumer is None:
            return None
        function: Any = consumer.handler
        name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
        has_reset = consumer.reset_function is not None
        return cls(name, consumer.batch_size, consumer.max_attempts, consumer.on_failure, has_reset)


class SubscriptionPages(Pages[Subscription]):
    """Pages about subscriptions."""

    templates = "subscription"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        """Return subscriptions, without deleted ones whose links still exist."""
        return super().get_queryset(request).filter(name__isnull=False)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: clients create subscriptions, and workers create those of consumers."""
        return False

    def stream_names(self, request: HttpRequest) -> StreamNames:
        """Return which streams the pages for a request may name."""
        return StreamNames(self.admin_site, request, self.alias)

    def consumer(self, subscription: Subscription) -> Consumer | None:
        """Return the consumer of a subscription, if the code has it."""
        consumer = of_stored_name(subscription.name)
        return consumer if consumer is not None and consumer.alias == self.alias else None


class DetailView(SubscriptionPages):
    """The page that shows a subscription."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a subscription. What changes it has URLs of its own."""
        return self._detail_page(request, object_id)

    @of_row("view")
    def _detail_page(self, request: HttpRequest, subscription: Subscription) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        subscription = with_link_facts(self.get_queryset(request)).get(pk=subscription.pk)
        facts: Any = subscription
        names = self.stream_names(request)
        consumer = self.consumer(subscription)
        is_consumer = subscription.kind == Subscription.Kind.CONSUMER
        own_paths = {subscription.wake_stream, only_path(subscription.pattern), consumer and consumer.dead_letters}
        named = names.of([path for path in own_paths if path])
        may_change = self.may(request, "change", subscription)
        is_replaying = is_consumer and replaying.is_replayed(subscription)
        waits = subscription.next_attempt_at is not None or facts.has_stopped or facts.has_failing
        return self.render(
            request,
            "subscription",
            str(subscription),
            subscription=subscription,
            original=subscription,
            state=State.of(subscription),
            is_consumer=is_consumer,
            declared=Declared.by(consumer),
            pattern=shown_pattern(subscription, named),
            named=named,
            wake_stream_url=named.get(subscription.wake_stream),
            dead_letters=self._dead_letters(consumer, named),
            is_in_flight=bool(subscription.wake_id),
            lease_runs=is_ahead(subscription.lease_expires_at),
            lease_ends=moments.seconds_ahead(subscription.lease_expires_at),
            next_attempt=moments.seconds_ahead(subscription.next_attempt_at),
            lease_seconds=subscription.lease_ms / 1000,
            last_error=shown_error(subscription, named)[-ERROR_LENGTH:],
            is_replaying=is_replaying,
            page=links_page(subscription, request.GET, names, self.alias),
            may_pause=may_change and not subscription.is_paused,
            may_resume=may_change and (subscription.is_paused or is_replaying),
            may_retry=may_change and waits,
            may_retry_links=may_change and is_consumer,
            may_reset=may_change and (consumer is not None or not is_consumer),
            may_delete=self.may(request, "delete", subscription),
        )

    def _dead_letters(self, consumer: Consumer | None, named: dict[str, str]) -> dict[str, Any] | None:
        """Return what the page shows of the stream with a consumer's dead letters, if it may be named."""
        if consumer is None or consumer.dead_letters not in named:
            return None
        path = consumer.dead_letters
        stream = Stream.objects.using(self.alias).alive().filter(path=path).defer("lineage").first()
        last_append = None if stream is None else moments.ago(stream.appended_at)
        return {"path": path, "url": named[path], "stream": stream, "last_append": last_append}


def shown_pattern(subscription: Subscription, named: dict[str, str]) -> str:
    """Return the pattern of a subscription, unless it is the path of a stream that may not be named."""
    path = only_path(subscription.pattern)
    return subscription.pattern if path is None or path in named else ""


def shown_error(subscription: Subscription, named: dict[str, str]) -> str:
    """Return the last error of a subscription, unless it names a wake stream that may not be named."""
    wake_stream = subscription.wake_stream
    return subscription.last_error if not wake_stream or wake_stream in named else ""
