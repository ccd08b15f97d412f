"""The endpoint that Prometheus scrapes.

path("metrics", MetricsView.as_view(token=os.environ["METRICS_TOKEN"]))

It shows all metrics of prometheus_client's registry, those of the project too. They are not for the public.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ...access.model_permissions import VIEW
from ...server.non_atomic import never_atomic
from . import multiprocess
from .lags import LagCollector
from .registration import register
from .value_files import WholeFilesCollector

MIN_TOKEN_LENGTH = 16


@method_decorator(never_cache, name="dispatch")
@method_decorator(never_atomic, name="dispatch")
class MetricsView(View):
    """Shows the metrics to clients with the token. Without a token, to staff who may view streams.

    Args of `as_view`:
        token: the text that clients send as `Authorization: Bearer ...`, of 16 characters or more.
        lag_seconds: show the lag of subscriptions and consumers, from a query at most so many seconds old. 0: do not.

    Raises:
        ImproperlyConfigured: the token is too short.
    """

    token: str | None = None
    lag_seconds: float = 0.0

    @classmethod
    def as_view(cls, **options: Any) -> Any:
        """Return the view."""
        token = options.get("token", cls.token)
        if token is not None and len(token) < MIN_TOKEN_LENGTH:
            raise ImproperlyConfigured(f"The token of MetricsView must have {MIN_TOKEN_LENGTH} characters or more.")
        register()
        return super().as_view(**options)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer a request, if it is allowed."""
        if self.token is not None:
            if not constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {self.token}"):
                return HttpResponse(
                    "The token is missing or wrong.\n", status=401, headers={"WWW-Authenticate": "Bearer"}
                )
        elif not _is_allowed(request):
            return HttpResponse("Only staff who may view streams see the metrics.\n", status=403)
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show all metrics, in the format that the client prefers."""
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        body = encode(self._registry)
        if self.lag_seconds:
            body = _joined(body, encode(_lag_registry(self.lag_seconds)))
        return HttpResponse(body, content_type=content_type)

    @cached_property
    def _registry(self) -> CollectorRegistry:
        if multiprocess.directory() is None:
            return REGISTRY
        with suppress(OSError):
            multiprocess.remove_dead()
        multiprocess.writer.write_or_log()
        registry = CollectorRegistry()
        WholeFilesCollector(registry)  # type: ignore[no-untyped-call]
        return registry


def _is_allowed(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.is_staff and user.has_perm(VIEW)


_END = b"# EOF\n"


def _joined(first: bytes, second: bytes) -> bytes:
    """Join two texts of metrics. In the format of OpenMetrics, the end comes once."""
    return first.removesuffix(_END) + second


@lru_cache(maxsize=8)
def _lag_registry(seconds: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(LagCollector(seconds))
    return registry
