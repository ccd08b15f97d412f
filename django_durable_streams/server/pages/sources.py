"""Event sources as projects use them: functions that return a view's response, and a view for URLs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Unpack

from asgiref.sync import async_to_sync
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from ...models.methods import StreamMethods
from ..non_atomic import never_atomic
from .options import EventSourceOptions, EventSourceSettings, Render
from .responses import SourceStream, respond


def event_source(request: HttpRequest, path: str, **options: Unpack[EventSourceOptions]) -> HttpResponseBase:
    """Return the response of a synchronous view: the messages of the stream at a path as events for a page.

    See `Stream.event_source`, which does the same for a stream that was loaded.

    Raises:
        TypeError, ValueError, InvalidOffset: an option has an invalid value. Refusals are responses.
    """
    return async_to_sync(respond)(request, SourceStream(path), EventSourceSettings(**options))


async def aevent_source(request: HttpRequest, path: str, **options: Unpack[EventSourceOptions]) -> HttpResponseBase:
    """The same as `event_source`, for asynchronous views."""
    return await respond(request, SourceStream(path), EventSourceSettings(**options))


def stream_source(stream: StreamMethods, request: HttpRequest, options: EventSourceOptions) -> HttpResponseBase:
    """Return the response with the events of a stream. See `Stream.event_source`."""
    return async_to_sync(astream_source)(stream, request, options)


async def astream_source(stream: StreamMethods, request: HttpRequest, options: EventSourceOptions) -> HttpResponseBase:
    """Return the same response to an asynchronous view."""
    stream_id = stream._expected() if stream.path is not None else None
    return await respond(request, SourceStream(stream.path, stream_id, stream._alias()), EventSourceSettings(**options))


@method_decorator(csrf_exempt, name="dispatch")  # other methods than GET are refused
@method_decorator(never_atomic, name="dispatch")
class EventView(View):
    """A view with the messages of the stream at `path` as events: `path("events/<path:path>", EventView.as_view())`.

    Its attributes are the options of an event source, see `EventSourceOptions`. Set them in a subclass, or as arguments
    of `as_view`. A function in a subclass is a `staticmethod`, or `render` would be the method of one request's view.
    """

    settings = EventSourceSettings()
    """The options of the view. `as_view` makes them."""

    render: Render | None = settings.render
    event: str | Callable[..., str | None] = settings.event
    per_request: bool = settings.per_request
    end_event: str = settings.end_event
    offset: str = settings.offset
    retry: float = settings.retry
    check_permissions: bool = settings.check_permissions

    view_is_async = True

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., Any]:
        """Return the view for URLs.

        Raises:
            TypeError, ValueError, InvalidOffset: an option has an invalid value.
        """
        options = {field.name: initkwargs.get(field.name, _static(cls, field.name)) for field in fields(cls.settings)}
        settings = EventSourceSettings(**options)
        view = super().as_view(**initkwargs, settings=settings)
        view.event_source_settings = settings  # type: ignore[attr-defined]
        return view

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        """Answer a request."""
        request.get_host()  # raises the error that Django answers with 400, also without CommonMiddleware
        return await respond(request, SourceStream(self.get_path()), self.settings)

    def get_path(self) -> str:
        """Return the path of the stream: here, the argument `path` of the URL."""
        path: str = self.kwargs["path"]
        return path


def _static(cls: type, name: str) -> Any:
    value = inspect.getattr_static(cls, name)
    if isinstance(value, staticmethod):
        return value.__func__
    if inspect.isfunction(value):
        raise TypeError(f"{cls.__name__}.{name} must be a staticmethod, so that all readers share its result.")
    return value
