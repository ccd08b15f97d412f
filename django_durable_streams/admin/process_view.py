"""The page of the numbers of the process that answers. It names no stream, and queries only the user's permissions."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..engine.numbers import EngineStats
from ..runtime.counting import HistogramValue
from ..stats import process_stats
from .base import StreamPages

MAX_ROWS = 100
"""Rows of the table of requests, those with the most requests first."""

KINDS = {
    "sse": gettext_lazy("Server-Sent Events"),
    "long_poll": gettext_lazy("long-poll"),
    "websocket": gettext_lazy("WebSocket"),
    "tail": gettext_lazy("tail in Python"),
    "page": gettext_lazy("events for pages"),
}


class Times(NamedTuple):
    """A histogram of seconds, in milliseconds."""

    number: int
    mean: float
    median: float
    p99: float

    @classmethod
    def of(cls, histogram: HistogramValue) -> Times:
        """Return the times of a histogram."""
        return cls(histogram.count, histogram.mean * 1e3, histogram.quantile(0.5) * 1e3, histogram.quantile(0.99) * 1e3)


class ProcessView(StreamPages):
    """The page of a process, in the list of streams."""

    def process_view(self, request: HttpRequest) -> HttpResponse:
        """Show the numbers of this process."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        stats = process_stats()
        requests = sorted(stats.requests.requests.items(), key=itemgetter(1), reverse=True)
        return self.render(
            request,
            "process",
            _("This process"),
            process=stats.process,
            engines=[_describe(engine) for engine in stats.engines],
            requests=[(*key, count) for key, count in requests[:MAX_ROWS]],
            errors=_most(stats.requests.errors),
            exits=_most(stats.requests.fast_path_exits),
        )


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=itemgetter(1), reverse=True)


def _describe(engine: EngineStats) -> dict[str, Any]:
    parts = engine.cache_hits + engine.cache_misses
    return {
        "stats": engine,
        "appends": sum(engine.appends.values()),
        "append_bytes": sum(engine.append_bytes.values()),
        "commits": Times.of(engine.commit_seconds),
        "reads": Times.of(engine.read_seconds),
        "lags": [(_("commits here"), Times.of(engine.wakeup_lags["own"])),
                 (_("wake-up messages"), Times.of(engine.wakeup_lags["message"]))],
        "readers": [(KINDS.get(kind, kind), count) for kind, count in _most(engine.live_readers)],
        "hit_rate": 100 * engine.cache_hits / parts if parts else None,
        "tasks": sorted(engine.housekeeping.items()),
    }  # fmt: skip
