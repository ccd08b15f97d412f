"""The HTTP requests about subscriptions, below `__ds/` in the root of the streams (specification, sections 6 and 7).

A request is allowed before its body is read: by the guard, or by the token of its wake. Whoever is refused learns
nothing about the subscription, not even whether it exists. The other modules of this room do the work, in the service's
thread. Knows neither rows nor the rules of wakes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote
from weakref import WeakKeyDictionary

import msgspec

from ..access.guard import current_guard
from ..conf import config
from ..protocol import headers
from ..protocol.caching import NO_STORE, Caching
from ..protocol.errors import PayloadTooLarge, UnsupportedContentEncoding
from ..protocol.messages import Header, Request, Response
from ..protocol.paths import CONTROL_ROOT
from ..protocol.subscription_bodies import parse_claim, parse_config, parse_streams, parse_wake_request
from ..protocol.subscriptions import (
    MAX_URL_LENGTH,
    SUBSCRIPTION_NOT_FOUND,
    WEBHOOK,
    SubscriptionError,
    WakeRequest,
    invalid_request,
    stream_path,
    subscription_id,
    token_invalid,
)
from ..server.bodies import announced_length
from ..server.body_preparation import LONG_BYTES
from ..server.control import choose_method, not_found
from . import leases, registry, signing_keys, tokens
from .addresses import check_url
from .rows import find
from .serialization import describe, describe_links
from .service import Service, service_for

MAX_BODY_BYTES = 1024 * 1024
"""Largest body of a request, in bytes. MAX_APPEND_BYTES counts too, where it is smaller."""

MAX_TOKEN_LENGTH = 1024
"""Characters of a token. Longer ones are refused."""

KEYS_SECONDS = 5.0
"""For how long a process answers with the public keys that it has, so that nobody can busy the database with them."""

MAX_REST_SECONDS = 0.1
"""The longest rest between two parts of a description."""

_JSON = b"application/json"
_JWKS = b"application/jwk-set+json"
_NO_STORE: Header = (headers.CACHE_CONTROL, NO_STORE)


class Call(NamedTuple):
    """A request that was allowed, with everything that a function of this module needs to answer it."""

    request: Request
    service: Service
    name: str
    """The id of the subscription."""
    path: str
    """The rest of the URL: the path of a stream, not yet validated."""
    token: str
    """The token of a wake, or nothing."""
    content: Any
    """The parsed body, or None."""


class Endpoint(NamedTuple):
    """How requests with one method of one route are answered.

    `purpose` is that of the token which allows the request. With None, the guard allows it.
    """

    respond: Callable[[Call], Awaitable[Response]]
    parse: Callable[[bytes], Any] | None = None
    purpose: str | None = None


async def respond_control(request: Request) -> Response:
    """Return the response to a request below `__ds/`.

    Raises:
        DurableStreamsError: the request is refused.
        ClientDisconnected: the client has left.
    """
    if request.path == CONTROL_ROOT + "jwks.json":
        choose_method(request, {"GET": None})
        return await _respond_keys(service_for())
    methods, name, path = _find(request.path)
    endpoint = choose_method(request, methods)
    token = ""
    if endpoint.purpose is not None:
        token = _token(request)
        tokens.verify(token, endpoint.purpose)
    elif (guard := current_guard()) is not None:
        await guard.admit_control(request, name)
    content = None if endpoint.parse is None else await _parsed_body(request, endpoint.parse)
    return await endpoint.respond(Call(request, service_for(), name, path, token, content))


def _find(path: str) -> tuple[Mapping[str, Endpoint], str, str]:
    """Return the endpoints of a route by method, the id of the subscription, and the rest of the path."""
    kind, _, path = path.removeprefix(CONTROL_ROOT).partition("/")
    name, slash, below = path.partition("/")
    action, second_slash, rest = below.partition("/")
    methods = _ROUTES.get(slash + action + second_slash)
    if kind != "subscriptions" or not name or methods is None:
        raise not_found()
    return methods, subscription_id(name), rest


def _token(request: Request) -> str:
    """Return the token of a wake. No other credentials count (section 12.9)."""
    scheme, _, token = headers.text(request.headers.get(headers.AUTHORIZATION, b"")).partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token.isascii() or not 0 < len(token) <= MAX_TOKEN_LENGTH:
        raise token_invalid()
    return token


async def _parsed_body(request: Request, parse: Callable[[bytes], Any]) -> Any:
    if headers.is_coded(headers.text(request.headers.get(headers.CONTENT_ENCODING, b""))):
        raise UnsupportedContentEncoding(
            "The body must not be compressed. Send it without Content-Encoding.",
            ((headers.ACCEPT_ENCODING, b"identity"),),
        )
    _check_size(announced_length(request.headers) or 0)
    try:
        if request.body is None:
            request.body = await request.read_body()
        body = request.body
        _check_size(len(body))
        if len(body) < LONG_BYTES:
            return parse(body)
        return await asyncio.to_thread(parse, body)
    finally:
        if request.arriving is not None:
            request.arriving.release()


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes. Name fewer streams in one request.")


def _base_url(request: Request) -> str:
    """Return the root of the streams as the client sees it, with a slash at its end."""
    prefix = config().url_prefix
    if prefix.startswith(("http://", "https://")):
        return prefix
    url = request.url().decode("latin-1").removesuffix(quote(request.path))
    if len(url) > MAX_URL_LENGTH:
        raise invalid_request(f"The URL of this server has over {MAX_URL_LENGTH} characters.")
    return url


async def _respond_keys(service: Service) -> Response:
    """Return the public keys of webhooks (section 6.5). Everybody may have them."""
    now = time.monotonic()
    expires_at, keys = _keys.get(service, (now, b""))
    if now >= expires_at:
        if keys:
            _keys[service] = now + KEYS_SECONDS, keys  # one request asks for newer keys
        keys = await service.call(signing_keys.jwks, service.using)
        _keys[service] = time.monotonic() + KEYS_SECONDS, keys
    return _encoded(200, keys, _JWKS, caching=Caching.KEYS)


_keys: WeakKeyDictionary[Service, tuple[float, bytes]] = WeakKeyDictionary()
"""Until when to answer with which keys, by service."""


async def _create(call: Call) -> Response:
    """Create a subscription, or confirm it (section 6.2)."""
    configuration, service = call.content, call.service
    if configuration.kind == WEBHOOK:
        check_url(configuration.webhook_url)
    elif (guard := current_guard()) is not None:  # the server appends for the caller
        await guard.admit_wake_stream(call.request, configuration.wake_stream)
    base_url = _base_url(call.request)
    subscription, is_new = await service.call(registry.create, call.name, configuration, base_url, service.using)
    if is_new and configuration.pattern:
        await service.link_existing(subscription)
    body = await _described(call)
    location = [(headers.LOCATION, call.request.url())] if is_new else []
    return _encoded(201 if is_new else 200, body, _JSON, location)


async def _get(call: Call) -> Response:
    """Describe a subscription (section 6.3)."""
    return _encoded(200, await _described(call), _JSON)


async def _described(call: Call) -> bytes:
    """Return a subscription as JSON. It may have very many links, so they are read in parts.

    Between them it rests for as long as a part has taken: appends share the process.
    """
    service = call.service
    key, description = await service.call(_describe, call.name, service.using)
    parts: list[bytes] = []
    size, after = 0, _FIRST_LINK
    try:
        while after is not None:
            began = time.monotonic()
            part, after = await service.call(_encode_links, key, after, service.using)
            service.descriptions.check(0, -size, len(part))  # a single one may have any size
            service.descriptions.add(0, len(part))
            size += len(part)
            parts += [part] if part else []
            if after is not None:
                await asyncio.sleep(min(time.monotonic() - began, MAX_REST_SECONDS))
        return b'%b,"streams":[%b]}' % (description[:-1], b",".join(parts))
    finally:
        service.descriptions.remove(0, size)


_FIRST_LINK: int | None = 0


def _describe(name: str, using: str) -> tuple[int, bytes]:
    subscription = find(name, using)
    return subscription.pk, msgspec.json.encode(describe(subscription, using))


def _encode_links(key: int, after: int, using: str) -> tuple[bytes, int | None]:
    links, last = describe_links(key, after, using)
    return msgspec.json.encode(links)[1:-1], last


async def _delete(call: Call) -> Response:
    """Delete a subscription (section 6.3). One that does not exist is deleted, so a request may be repeated."""
    try:
        await call.service.call(registry.delete, call.name, call.service.using)
    except SubscriptionError as error:
        if error.error_code != SUBSCRIPTION_NOT_FOUND:
            raise
    return Response(204, [])


async def _add_streams(call: Call) -> Response:
    """Link streams explicitly (section 6.4)."""
    await call.service.call(registry.add_streams, call.name, call.content, call.service.using)
    return Response(204, [])


async def _remove_stream(call: Call) -> Response:
    """Remove an explicit link (section 6.4)."""
    await call.service.call(registry.remove_stream, call.name, stream_path(call.path), call.service.using)
    return Response(204, [])


async def _claim(call: Call) -> Response:
    """Give a worker the lease (section 7.2)."""
    claimed = await call.service.call(leases.claim, call.name, call.content, call.service.using)
    return _encoded(200, msgspec.json.encode(claimed), _JSON, [_NO_STORE])  # it has a token


async def _release(call: Call) -> Response:
    """Take a lease back (section 7.2)."""
    await call.service.call(leases.release, call.name, call.token, call.content, call.service.using)
    call.service.wake()
    return Response(204, [])


async def _ack(call: Call) -> Response:
    """Apply the acknowledgements of a worker (section 7.2)."""
    return await _acknowledge(call, leases.ack)


async def _callback(call: Call) -> Response:
    """Apply the acknowledgements of a webhook's receiver (section 7.1)."""
    return await _acknowledge(call, leases.callback)


async def _acknowledge(call: Call, apply: Callable[[str, str, WakeRequest, str], bool]) -> Response:
    next_wake = await call.service.call(apply, call.name, call.token, call.content, call.service.using)
    if next_wake:
        call.service.wake()
    return _encoded(200, msgspec.json.encode({"ok": True, "next_wake": next_wake}), _JSON)


def _encoded(
    status: int, body: bytes, kind: bytes, more: list[Header] | None = None, *, caching: Caching = Caching.NEVER
) -> Response:
    content = [(headers.CONTENT_TYPE, kind), (headers.CONTENT_LENGTH, b"%d" % len(body))]
    return Response(status, [*content, *(more or [])], body, caching=caching)


_ROUTES: Mapping[str, Mapping[str, Endpoint]] = {
    "": {"PUT": Endpoint(_create, parse_config), "GET": Endpoint(_get), "DELETE": Endpoint(_delete)},
    "/streams": {"POST": Endpoint(_add_streams, parse_streams)},
    "/streams/": {"DELETE": Endpoint(_remove_stream)},
    "/claim": {"POST": Endpoint(_claim, parse_claim)},
    "/ack": {"POST": Endpoint(_ack, parse_wake_request, leases.CLAIM)},
    "/release": {"POST": Endpoint(_release, parse_wake_request, leases.CLAIM)},
    "/callback": {"POST": Endpoint(_callback, parse_wake_request, leases.CALLBACK)},
}
"""The routes of one subscription, by the part of the path after its id."""
