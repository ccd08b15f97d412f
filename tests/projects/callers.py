"""The entry points of a project, called the same way."""

from collections.abc import Callable
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.conf import settings
from django.test import AsyncClient, Client

from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.testing import StreamClient


class Answer(NamedTuple):
    """A response: status, headers by their lower-case names, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


Call = Callable[..., Answer]


def root() -> str:
    """The path below which a project has its streams."""
    return f"{settings.FORCE_SCRIPT_NAME or ''}/{settings.PREFIX}"


def asgi() -> Call:
    """The bare ASGI application."""
    client = StreamClient(DurableStreams(prefix=f"/{settings.PREFIX}"), root=root())

    def call(method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        reply = async_to_sync(client.request)(
            method, target, {name.replace("_", "-"): value for name, value in headers.items()}, body
        )
        return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, reply.body)

    return call


def urls() -> Call:
    """Django's URLs under its ASGI handler."""
    client = AsyncClient()

    async def request(method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        extra_headers: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = extra_headers.pop("content-type", "")
        response: Any = await client.generic(method, root() + target, body, content_type=kind, headers=extra_headers)
        data = b"".join([part async for part in response.streaming_content]) if response.streaming else response.content
        return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, data)

    def call(method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        return async_to_sync(request)(method, target, body, headers)

    return call


def wsgi() -> Call:
    """Django's URLs under its WSGI handler."""
    client = Client()

    def call(method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        extra_headers: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = extra_headers.pop("content-type", "")
        url = f"/{settings.PREFIX}{target}"
        response: Any = client.generic(method, url, body, content_type=kind, headers=extra_headers)
        received = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, received, response.content)

    return call


ENTRY_POINTS: dict[str, Callable[[], Call]] = {"asgi": asgi, "urls": urls, "wsgi": wsgi}
