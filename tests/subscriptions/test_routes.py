"""The requests below `__ds/`, the same at every entry point. The functions behind them are replaced."""

import gzip
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.core import signing
from django.middleware.csrf import _get_new_csrf_string, _mask_cipher_secret  # type: ignore[attr-defined]
from django.test import Client, override_settings

from django_durable_streams.models import Subscription
from django_durable_streams.protocol.errors import DurableStreamsError, ServiceUnavailable
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.protocol.subscriptions import (
    Ack,
    SubscriptionConfig,
    SubscriptionError,
    WakeRequest,
    already_claimed,
    fenced,
    subscription_not_found,
)
from django_durable_streams.runtime.backlog import Backlog
from django_durable_streams.server import control
from django_durable_streams.subscriptions import routes, tokens
from tests.asgi_client import Reply
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.subscriptions.fakes import FakeService

SUB = "__ds/subscriptions/sub-1"
CLOSED = override_streams(PERMISSION_CLASSES="django_durable_streams.permissions.ModelPermissions")
OFFSET = "0000000000000002_0000000000000084"

CONFIG = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool", "lease_ttl_ms": 1000}
PARSED = SubscriptionConfig("pull-wake", "events/*", (), "", "wake/pool", 1000, "")
HOOK = {"type": "webhook", "streams": ["a"], "webhook": {"url": "https://worker.example/hooks"}}
WAKE = {"wake_id": "w_1", "generation": 7, "acks": [{"stream": "events/a", "offset": OFFSET}], "done": True}
ACKED = WakeRequest("w_1", 7, (Ack("events/a", Offset(2, 84)),), done=True)

CLAIM_TOKEN = tokens.make(Subscription(pk=1, generation=7), "claim")
CALLBACK_TOKEN = tokens.make(Subscription(pk=1, generation=7), "callback")
CLAIM_BEARER = {"authorization": f"Bearer {CLAIM_TOKEN}"}
CALLBACK_BEARER = {"authorization": f"Bearer {CALLBACK_TOKEN}"}

# Method, target, headers and body; the status, and the call of the function that answers.
REQUESTS: dict[str, tuple[str, str, dict[str, str], Any, int, tuple[Any, ...]]] = {
    "create": ("PUT", SUB, {}, CONFIG, 201, ("create", "sub-1", PARSED, "http://testserver/v1/stream/", "default")),
    "get": ("GET", SUB, {}, None, 200, ("_describe", "sub-1", "default")),
    "delete": ("DELETE", SUB, {}, None, 204, ("delete", "sub-1", "default")),
    "add": (
        "POST",
        f"{SUB}/streams",
        {},
        {"streams": ["b", "a"]},
        204,
        ("add_streams", "sub-1", ("a", "b"), "default"),
    ),
    "remove": ("DELETE", f"{SUB}/streams/x%2Fy", {}, None, 204, ("remove_stream", "sub-1", "x/y", "default")),
    "claim": ("POST", f"{SUB}/claim", {}, {"worker": "w"}, 200, ("claim", "sub-1", "w", "default")),
    "ack": ("POST", f"{SUB}/ack", CLAIM_BEARER, WAKE, 200, ("ack", "sub-1", CLAIM_TOKEN, ACKED, "default")),
    "release": ("POST", f"{SUB}/release", CLAIM_BEARER, WAKE, 204, ("release", "sub-1", CLAIM_TOKEN, ACKED, "default")),
    "callback": (
        "POST",
        f"{SUB}/callback",
        CALLBACK_BEARER,
        WAKE,
        200,
        ("callback", "sub-1", CALLBACK_TOKEN, ACKED, "default"),
    ),
}
GUARDED = ("create", "get", "delete", "add", "remove", "claim")
WITH_TOKEN = ("ack", "release", "callback")
WITH_BODY = ("create", "add", "claim", "ack", "release", "callback")


@pytest.fixture(params=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, engines: None) -> EntryPoint:
    return EntryPoint(request.param)


@pytest.fixture(autouse=True)
def service() -> Iterator[FakeService]:
    fake = FakeService()
    with patch.object(routes, "service_for", lambda using=None: fake):
        yield fake


def encode(body: Any) -> bytes:
    return b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()


async def send(
    entry: EntryPoint, name: str, *, headers: dict[str, str] | None = None, body: Any = ..., query: str = ""
) -> Reply:
    """Send one of the requests, with other headers or another body."""
    method, target, own, content, _, _ = REQUESTS[name]
    kind = {} if content is None else {"content-type": "application/json"}
    return await entry.request(
        method, target + query, {**kind, **own, **(headers or {})}, encode(content if body is ... else body)
    )


def code_of(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert error["message"]
    return str(error["code"])


# What is answered


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_reaches_its_function(entry: EntryPoint, service: FakeService, name: str) -> None:
    reply = await send(entry, name)
    status, call = REQUESTS[name][4:]
    assert (reply.status, service.calls[0]) == (status, call)
    assert reply.headers["x-content-type-options"] == "nosniff"
    if status == 204:
        assert reply.body == b""
        assert "content-type" not in reply.headers
    else:
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["content-length"] == str(len(reply.body))


async def test_a_new_subscription_is_linked_to_existing_streams_and_described(
    entry: EntryPoint, service: FakeService
) -> None:
    reply = await send(entry, "create")
    assert (reply.status, reply.json()) == (201, {"id": "sub-1", "streams": [{"path": "a"}]})
    assert reply.headers["location"] == f"http://testserver/v1/stream/{SUB}"
    assert service.linked == ["the subscription"]
    service.outcomes["create"] = ("the subscription", False)
    reply = await send(entry, "create")
    assert (reply.status, reply.json()) == (200, {"id": "sub-1", "streams": [{"path": "a"}]})
    assert "location" not in reply.headers
    assert service.linked == ["the subscription"]


async def test_a_subscription_without_a_pattern_waits_for_no_links(entry: EntryPoint, service: FakeService) -> None:
    assert (await send(entry, "create", body={**CONFIG, "pattern": None, "streams": ["a"]})).status == 201
    assert service.linked == []


async def test_a_webhook_to_a_private_address_is_refused(entry: EntryPoint, service: FakeService) -> None:
    reply = await send(entry, "create", body={**HOOK, "webhook": {"url": "http://10.0.0.1/hook"}})
    assert (reply.status, code_of(reply)) == (400, "WEBHOOK_URL_REJECTED")
    assert service.calls == []
    assert (await send(entry, "create", body=HOOK)).status == 201


@pytest.mark.parametrize("name", ["ack", "callback"])
async def test_an_acknowledgement_says_whether_another_wake_follows(
    entry: EntryPoint, service: FakeService, name: str
) -> None:
    reply = await send(entry, name)
    assert (reply.json(), service.wakes) == ({"ok": True, "next_wake": False}, 0)
    service.outcomes[name] = True
    reply = await send(entry, name)
    assert (reply.json(), service.wakes) == ({"ok": True, "next_wake": True}, 1)


async def test_a_released_subscription_is_looked_at_again(entry: EntryPoint, service: FakeService) -> None:
    await send(entry, "release")
    assert service.wakes == 1


async def test_what_has_a_token_or_may_change_is_not_stored_by_caches(entry: EntryPoint) -> None:
    assert (await send(entry, "claim")).headers["cache-control"] == "no-store"
    assert (await send(entry, "get")).headers["cache-control"] == "no-store"


async def test_head_is_a_get_without_a_body(entry: EntryPoint, service: FakeService) -> None:
    for target in (SUB, "__ds/jwks.json"):
        whole, head = await entry.request("GET", target), await entry.request("HEAD", target)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert [call[0] for call in service.calls] == [*["_describe", "_encode_links"] * 2, "jwks"]


async def test_the_public_keys_are_for_everybody_and_for_caches(entry: EntryPoint, service: FakeService) -> None:
    for settings in (CLOSED, override_streams(CACHE_SCOPE="private")):
        with settings:
            reply = await entry.request("GET", "__ds/jwks.json")
        assert (reply.status, reply.body) == (200, b'{"keys":[]}')
        assert reply.headers["content-type"] == "application/jwk-set+json"
        assert reply.headers["cache-control"] == "public, max-age=300"
        if entry.name in ("asgi", "direct"):  # elsewhere, middleware may have asked for the session
            assert "vary" not in reply.headers
    assert service.calls == [("jwks", "default")]


async def test_no_number_of_requests_for_the_public_keys_keeps_the_database_busy(
    entry: EntryPoint, service: FakeService
) -> None:
    for _ in range(20):
        assert (await entry.request("GET", "__ds/jwks.json")).status == 200
    assert service.calls == [("jwks", "default")]
    # Old keys are for others while one request asks for new ones, and if it fails.
    service.outcomes["jwks"] = b'{"keys":[1]}'
    routes._keys[service] = 0.0, routes._keys[service][1]  # type: ignore[index]
    service.error = ServiceUnavailable("The database does not answer.")
    replies = [await entry.request("GET", "__ds/jwks.json") for _ in range(3)]
    assert [reply.status for reply in replies] == [503, 200, 200]
    assert replies[-1].body == b'{"keys":[]}'
    service.error = None
    routes._keys[service] = 0.0, routes._keys[service][1]  # type: ignore[index]
    assert (await entry.request("GET", "__ds/jwks.json")).body == b'{"keys":[1]}'


async def test_errors_of_the_functions_are_answers(entry: EntryPoint, service: FakeService) -> None:
    errors: list[tuple[DurableStreamsError, int, dict[str, Any]]] = [
        (fenced(), 409, {"code": "FENCED"}),
        (subscription_not_found(), 404, {"code": "SUBSCRIPTION_NOT_FOUND"}),
        (already_claimed("w2", 7), 409, {"code": "ALREADY_CLAIMED", "current_holder": "w2", "generation": 7}),
    ]
    for service.error, status, expected in errors:
        for name in REQUESTS:
            reply = await send(entry, name)
            if (name, status) == ("delete", 404):
                assert reply.status == 204  # the subscription is gone, as the request wants it
                continue
            assert (reply.status, code_of(reply)) == (status, expected["code"])
            assert expected.items() <= reply.json()["error"].items()
            if REQUESTS[name][0] != "GET":
                assert reply.headers["cache-control"] == "no-store"


async def test_a_database_that_is_away_is_503(entry: EntryPoint, service: FakeService) -> None:
    service.error = ServiceUnavailable("The database does not answer.")
    for name in REQUESTS:
        reply = await send(entry, name)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")


# Routes


@pytest.mark.parametrize(
    "target",
    [
        "__ds",
        "__ds/",
        "__ds/nothing",
        "__ds/jwks",
        "__ds/jwks.json/",
        "__ds/jwks.json/x",
        "__ds/subscriptions",
        "__ds/subscriptions/",
        "__ds/subscriptions//claim",
        "__ds/subscriptions/sub-1/",
        "__ds/subscriptions/sub-1/claim/",
        "__ds/subscriptions/sub-1/claim/x",
        "__ds/subscriptions/sub-1/Claim",
        "__ds/subscriptions/sub-1/stream",
        "__ds/subscriptions/sub-1//streams",
        "__ds/Subscriptions/sub-1",
        "__ds%2Fnothing",
        "__ds//jwks.json",
        "__ds/%00",
        "__ds/%FF",
        "__ds/a%5Cb",
        "__ds/" + "x" * 600,
    ],
)
async def test_no_other_path_is_a_control_api(entry: EntryPoint, service: FakeService, target: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        reply = await entry.request(method, target, {"content-type": "text/plain"})
        assert reply.status == 404
        assert reply.json()["type"] == "urn:durable-streams:error:reserved-path"
    assert service.calls == []


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (SUB, {"PUT", "GET", "HEAD", "DELETE"}),
        (f"{SUB}/streams", {"POST"}),
        (f"{SUB}/streams/a", {"DELETE"}),
        (f"{SUB}/claim", {"POST"}),
        (f"{SUB}/ack", {"POST"}),
        (f"{SUB}/release", {"POST"}),
        (f"{SUB}/callback", {"POST"}),
        ("__ds/jwks.json", {"GET", "HEAD"}),
    ],
)
async def test_other_methods_are_refused_and_the_allowed_ones_named(
    entry: EntryPoint, service: FakeService, target: str, allowed: set[str]
) -> None:
    for method in {"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "TRACE"} - allowed:
        reply = await entry.request(method, target, {"content-type": "application/json"}, b"{}")
        assert (method, reply.status) == (method, 405)
        assert set(reply.headers["allow"].split(", ")) == allowed | {"OPTIONS"}
    assert service.calls == []


async def test_other_methods_are_refused_before_permission_is_asked_for(entry: EntryPoint) -> None:
    with CLOSED:
        assert (await entry.request("PATCH", SUB)).status == 405
        assert (await entry.request("PUT", f"{SUB}/claim")).status == 405
        assert (await entry.request("GET", "__ds/nothing")).status == 404


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        ("a%20b", "a b"),
        ("%C3%A9", "é"),
        ("%F0%9F%98%80", "\U0001f600"),
        ("%252F", "%2F"),
        ("a%3Fb%23c", "a?b#c"),
        ("sub:1;x=(2)", "sub:1;x=(2)"),
        ("claim", "claim"),
        ("...", "..."),
        ("x" * 256, "x" * 256),
    ],
)
async def test_an_id_may_have_odd_characters(entry: EntryPoint, service: FakeService, encoded: str, name: str) -> None:
    assert (await entry.request("GET", f"__ds/subscriptions/{encoded}")).status == 200
    assert (await entry.request("POST", f"__ds/subscriptions/{encoded}/claim", {}, b'{"worker":"w"}')).status == 200
    assert (await entry.request("DELETE", f"__ds/subscriptions/{encoded}/streams/a/b")).status == 204
    assert [call[1] for call in service.calls if call[0] != "_encode_links"] == [name] * 3


@pytest.mark.parametrize("encoded", ["%00", "%7F", "a%5Cb", "%FF", "%ED%A0%BD", "%EF%BF%BD", "x" * 257])
async def test_an_id_that_no_subscription_can_have_is_refused(
    entry: EntryPoint, service: FakeService, encoded: str
) -> None:
    for method, rest in (("PUT", ""), ("GET", ""), ("POST", "/claim"), ("POST", "/ack")):
        reply = await entry.request(method, f"__ds/subscriptions/{encoded}{rest}", {}, b"{}")
        assert (reply.status, code_of(reply)) == (400, "INVALID_REQUEST")
    assert service.calls == []


@pytest.mark.parametrize(
    ("encoded", "path"),
    [
        ("a", "a"),
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("%2Fa%2F", "a"),
        ("a%2520b", "a%20b"),
        ("%C3%A9/x%20y", "é/x y"),
        ("streams", "streams"),
        ("x" * 512, "x" * 512),
    ],
)
async def test_a_removed_stream_is_named_in_the_url(
    entry: EntryPoint, service: FakeService, encoded: str, path: str
) -> None:
    assert (await entry.request("DELETE", f"{SUB}/streams/{encoded}")).status == 204
    assert service.calls == [("remove_stream", "sub-1", path, "default")]


@pytest.mark.parametrize("encoded", ["", "%2F", "a//b", "a%2F%2Fb", "a%00", "a%5Cb", "%FF", "__ds/x", "x" * 513])
async def test_a_stream_that_cannot_be_is_not_removed(entry: EntryPoint, service: FakeService, encoded: str) -> None:
    reply = await entry.request("DELETE", f"{SUB}/streams/{encoded}")
    assert (reply.status, code_of(reply)) == (400, "INVALID_REQUEST")
    assert service.calls == []


async def test_the_query_has_no_meaning(entry: EntryPoint, service: FakeService) -> None:
    for query in ("?live=sse&offset=-1", "?live=long-poll", "?offset=x&offset=y", "?x=%FF"):
        assert (await send(entry, "get", query=query)).status == 200


async def test_a_reserved_path_elsewhere_in_a_request_is_none_of_its_own(
    entry: EntryPoint, service: FakeService
) -> None:
    headers = {"content-type": "text/plain", "stream-forked-from": f"/v1/stream/{SUB}"}
    for method in ("PUT", "POST"):
        reply = await entry.request(method, "a", headers, b"x")
        assert reply.status == 404
    assert (await entry.request("PATCH", "a")).status == 405
    assert service.calls == []


async def test_without_a_handler_the_paths_are_reserved(entry: EntryPoint) -> None:
    with patch.object(control, "_handlers", {}):
        for name in REQUESTS:
            reply = await send(entry, name)
            assert (reply.status, reply.json()["type"]) == (404, "urn:durable-streams:error:reserved-path")


# Bodies


@pytest.mark.parametrize("name", WITH_BODY)
async def test_a_body_that_is_not_understood_is_refused(entry: EntryPoint, service: FakeService, name: str) -> None:
    bodies = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"type":"\xff"}', b"[" * 100_000, b"{}", b'{"worker":1}']
    for body in bodies:
        reply = await send(entry, name, body=body)
        assert (body[:20], reply.status) == (body[:20], 400)
        assert code_of(reply) == "INVALID_REQUEST"
        assert len(reply.body) < 1000
    assert service.calls == []


@pytest.mark.parametrize("name", WITH_BODY)
async def test_a_body_has_at_most_a_mebibyte(entry: EntryPoint, service: FakeService, name: str) -> None:
    own = REQUESTS[name][3]
    padding = 1024 * 1024 - len(encode(own))
    assert (await send(entry, name, body=encode(own) + b" " * padding)).status == REQUESTS[name][4]
    service.calls.clear()
    reply = await send(entry, name, body=encode(own) + b" " * (padding + 1))
    assert reply.status == 413
    assert service.calls == []


async def test_a_smaller_limit_of_appends_counts_too(entry: EntryPoint, service: FakeService) -> None:
    with override_streams(MAX_APPEND_BYTES=50):
        assert (await send(entry, "claim", body={"worker": "w" * 40})).status == 413
    assert service.calls == []


async def test_a_compressed_body_is_refused(entry: EntryPoint, service: FakeService) -> None:
    headers = {"content-encoding": "gzip"}
    reply = await send(entry, "create", headers=headers, body=gzip.compress(encode(CONFIG)))
    assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
    assert (await send(entry, "create", headers={"content-encoding": "identity"})).status == 201


async def test_the_content_type_of_a_body_has_no_meaning(entry: EntryPoint) -> None:
    for kind in ("text/plain", "application/json; charset=utf-8", "nonsense"):
        assert (await send(entry, "create", headers={"content-type": kind})).status == 201


async def test_a_large_json_body_for_a_control_api_is_no_append(entry: EntryPoint, service: FakeService) -> None:
    body = {"streams": [f"events/{number:08d}/{'x' * 60}" for number in range(1000)]}
    assert (await send(entry, "add", body=body)).status == 204
    assert len(service.calls[0][2]) == 1000


# Who may


@pytest.mark.parametrize("name", GUARDED)
async def test_who_may_not_subscribe_learns_nothing(entry: EntryPoint, service: FakeService, name: str) -> None:
    with CLOSED:
        refused = await send(entry, name)
        service.error = subscription_not_found()
        again = await send(entry, name, body=b"{" if name in WITH_BODY else ...)
    assert (refused.status, again.status) == (403, 403)
    assert refused.body == again.body
    assert service.calls == []


@pytest.mark.parametrize("name", GUARDED)
async def test_tokens_of_wakes_allow_nothing_else(entry: EntryPoint, service: FakeService, name: str) -> None:
    with CLOSED:
        for headers in (CLAIM_BEARER, CALLBACK_BEARER):
            assert (await send(entry, name, headers=headers)).status == 403
    assert service.calls == []


@pytest.mark.parametrize("name", WITH_TOKEN)
async def test_only_the_token_of_the_wake_allows_its_end(entry: EntryPoint, service: FakeService, name: str) -> None:
    right = REQUESTS[name][2]["authorization"]
    other = CALLBACK_BEARER if name != "callback" else CLAIM_BEARER
    token = right.removeprefix("Bearer ")
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token}",
        token,
        f"Bearer {token}x",
        f"Bearer {token[:-1]}",
        f"Bearer {token} {token}",
        f"Bearer {signing.dumps([1, 7])}",
        f"Bearer {'x' * 5000}",
        "Bearer \xe9",
        other["authorization"],
    ]
    for settings in (override_streams(), CLOSED):
        with settings:
            for value in wrong:
                reply = await send(entry, name, headers={"authorization": value}, body=b"{")
                assert (value, reply.status) == (value, 401)
                assert code_of(reply) == "TOKEN_INVALID"
                assert reply.headers["www-authenticate"].startswith("Bearer")
            assert service.calls == []
            for scheme in ("Bearer", "bearer", "BEARER"):
                assert (await send(entry, name, headers={"authorization": f"{scheme}  {token}"})).status < 300
            service.calls.clear()


@pytest.mark.parametrize("name", WITH_TOKEN)
async def test_a_token_has_an_end(entry: EntryPoint, service: FakeService, name: str) -> None:
    with patch.object(tokens, "TOKEN_SECONDS", -1):
        reply = await send(entry, name)
    assert (reply.status, code_of(reply)) == (401, "TOKEN_EXPIRED")
    assert service.calls == []


def make_user(name: str, *codenames: str) -> dict[str, str]:
    """Make a user with permissions, and return the cookies of a session."""
    user = User.objects.create_user(name, password="x")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    django = Client()
    django.force_login(user)
    return {key: morsel.value for key, morsel in django.cookies.items()}


def with_token(cookies: dict[str, str]) -> dict[str, str]:
    secret = _get_new_csrf_string()
    return {**as_header({**cookies, "csrftoken": secret}), "x-csrftoken": _mask_cipher_secret(secret)}


def as_header(cookies: dict[str, str]) -> dict[str, str]:
    return {"cookie": "; ".join(f"{key}={value}" for key, value in cookies.items())}


async def test_djangos_permission_to_change_subscriptions_decides(entry: EntryPoint, service: FakeService) -> None:
    others = ("add_stream", "view_stream", "change_stream", "delete_stream", "view_subscription", "add_subscription")
    may = with_token(await sync_to_async(make_user)("may", "change_subscription", "change_stream"))
    may_not = with_token(await sync_to_async(make_user)("may-not", *others))
    with CLOSED:
        for name in GUARDED:
            assert (await send(entry, name, headers=may_not)).status == 403
            assert service.calls == []
        for name in GUARDED:
            assert (await send(entry, name, headers=may)).status == REQUESTS[name][4]


@pytest.mark.parametrize("headers", [{}, {"origin": "https://evil.example"}])
async def test_a_session_changes_nothing_without_the_csrf_token(
    entry: EntryPoint, service: FakeService, headers: dict[str, str]
) -> None:
    cookies = await sync_to_async(make_user)("may", "change_subscription")
    session = {**as_header(cookies), **headers}
    with CLOSED:
        for name in GUARDED:
            if name != "get":
                reply = await send(entry, name, headers=session)
                assert (reply.status, "CSRF" in reply.json()["detail"]) == (403, True)
        assert service.calls == []
        assert (await send(entry, "get", headers=session)).status == 200


async def test_the_token_of_a_wake_needs_no_csrf_token_and_no_session(entry: EntryPoint, service: FakeService) -> None:
    cookies = await sync_to_async(make_user)("may-not")
    with CLOSED:
        for name in WITH_TOKEN:
            assert (await send(entry, name)).status < 300
            own = {**REQUESTS[name][2], **as_header(cookies), "origin": "https://evil.example"}
            assert (await send(entry, name, headers=own)).status < 300


async def test_requests_can_be_limited_by_rate(entry: EntryPoint, service: FakeService) -> None:
    with override_streams(RATE_LIMITS={"subscribe": "2/d"}):
        statuses = [(await send(entry, name)).status for name in ("get", "claim", "get", "create", "delete")]
        assert statuses == [200, 200, 429, 429, 429]
        # Tokens come from claims, which are counted.
        assert [(await send(entry, name)).status for name in WITH_TOKEN] == [200, 204, 200]
        assert (await entry.request("GET", "__ds/jwks.json")).status == 200
    await sync_to_async(clear_cache)()


def clear_cache() -> None:
    from django.core.cache import cache

    cache.clear()


# Other origins


async def test_pages_of_an_allowed_origin_may_use_subscriptions(entry: EntryPoint) -> None:
    page = {"origin": "https://app.example"}
    with override_streams(CORS_ORIGINS=["https://app.example"]):
        for name in REQUESTS:
            assert (await send(entry, name, headers=page)).headers["access-control-allow-origin"] == page["origin"]
            asked = {"access-control-request-method": REQUESTS[name][0]}
            reply = await entry.request("OPTIONS", REQUESTS[name][1], {**page, **asked})
            assert reply.status == 204
            assert REQUESTS[name][0] in reply.headers["access-control-allow-methods"].split(", ")
            allowed = reply.headers["access-control-allow-headers"].split(", ")
            assert {"authorization", "content-type", "x-csrftoken"} <= set(allowed)
        reply = await send(entry, "ack", headers={**page, "authorization": ""})
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (401, page["origin"])
        reply = await send(entry, "get", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in reply.headers


async def test_options_asks_no_permission(entry: EntryPoint, service: FakeService) -> None:
    with CLOSED:
        for target in (SUB, f"{SUB}/ack", "__ds/jwks.json"):
            assert (await entry.request("OPTIONS", target)).status == 204
    assert service.calls == []


# The root of the URLs in webhooks


async def base_url(send_request: Callable[[], Awaitable[Reply]], service: FakeService) -> str:
    service.calls.clear()
    assert (await send_request()).status == 201
    return str(service.calls[0][3])


async def test_urls_begin_as_the_client_has_written_them(entry: EntryPoint, service: FakeService) -> None:
    async def create() -> Reply:
        return await entry.request("PUT", "__ds/subscriptions/a%20%C3%A9", {"host": "localhost:8001"}, encode(CONFIG))

    assert await base_url(create, service) == "http://localhost:8001/v1/stream/"
    with override_streams(URL_PREFIX="https://api.example/streams/"):
        assert await base_url(create, service) == "https://api.example/streams/"
    with override_streams(URL_PREFIX="/streams/"):
        assert await base_url(create, service) == "http://localhost:8001/v1/stream/"


async def test_a_proxy_says_the_scheme_if_it_is_trusted(entry: EntryPoint, service: FakeService) -> None:
    async def create() -> Reply:
        return await send(entry, "create", headers={"x-secure": "https"})

    assert (await base_url(create, service)).startswith("http://testserver/")
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_SECURE", "https")):
        assert await base_url(create, service) == "https://testserver/v1/stream/"


async def test_a_root_that_is_too_long_is_refused(entry: EntryPoint, service: FakeService) -> None:
    with override_settings(ALLOWED_HOSTS=[".example"]):
        reply = await send(entry, "create", headers={"host": f"{'x' * 2048}.example"})
    assert reply.status == 400
    assert service.calls == []


async def test_another_host_is_refused(entry: EntryPoint, service: FakeService) -> None:
    assert (await send(entry, "create", headers={"host": "evil.example"})).status == 400
    assert service.calls == []


# An error has its own type, whoever makes it.


async def test_an_unexpected_error_tells_nothing(
    entry: EntryPoint, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(function: Callable[..., Any], *args: Any) -> Any:
        raise RuntimeError("secret")

    with patch.object(service, "call", fail):
        reply = await send(entry, "ack")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert CLAIM_TOKEN not in caplog.text


def test_errors_of_subscriptions_are_errors_of_the_package() -> None:
    assert issubclass(SubscriptionError, DurableStreamsError)


async def test_descriptions_that_are_made_at_the_same_time_have_a_limit(
    entry: EntryPoint, service: FakeService
) -> None:
    """A subscription may have a million links, and each request makes a description of its own."""
    service.descriptions = Backlog(1, 1000)
    service.outcomes["_encode_links"] = (b"[" + b"1" * 300 + b"]", None)
    service.descriptions.add(0, 900)
    reply = await send(entry, "get")
    assert (reply.status, service.descriptions.bytes) == (503, 900)
    service.descriptions.remove(0, 900)
    service.outcomes["_encode_links"] = (b"[" + b"1" * 3000 + b"]", None)
    reply = await send(entry, "get")
    assert (reply.status, service.descriptions.bytes) == (200, 0)
