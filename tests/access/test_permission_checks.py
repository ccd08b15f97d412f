"""The checks without a coroutine: they decide as the guard's coroutine does, or not at all."""

from __future__ import annotations

import time
from itertools import product
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import jwt
import pytest
from django.core import exceptions

from django_durable_streams.access import bearer
from django_durable_streams.access.base import Permission
from django_durable_streams.access.guard import current_guard
from django_durable_streams.permissions import BearerTokens, sign
from django_durable_streams.protocol.errors import DurableStreamsError, PermissionDenied, ServiceUnavailable
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.uvicorn import request_heads
from django_durable_streams.server.uvicorn.mount import Mount
from django_durable_streams.server.uvicorn.request import AnsweringConnection, FastPathRequest
from tests.overriding import override_streams

KEY = "a secret that is long enough for HS256"
MOUNT = Mount(DurableStreams(), "", DurableStreams)
CONNECTION = cast(
    "AnsweringConnection",
    SimpleNamespace(
        mount=MOUNT,
        client=("127.0.0.1", 1),
        server=("127.0.0.1", 80),
        scheme="http",
        app_state={},
        config=SimpleNamespace(asgi_version="3.0"),
    ),
)

calls: list[str] = []


class Counting(Permission):
    """Allows what is below `open/`, and counts the calls of its methods."""

    in_memory = True
    needs_user = False

    def can_read(self, user: Any, path: str, request: Any) -> Any:
        calls.append(path)
        return path.startswith("open/")

    can_create = can_append = can_close = can_delete = can_read


class Raising(Counting):
    """Raises instead of returning False."""

    def can_read(self, user: Any, path: str, request: Any) -> Any:
        if not path.startswith("open/"):
            raise exceptions.PermissionDenied
        return 1

    can_create = can_append = can_close = can_delete = can_read


class Disguised(Counting):
    """Returns an awaitable, although its methods do not look so."""

    def can_read(self, user: Any, path: str, request: Any) -> Any:
        async def answer() -> bool:
            return path.startswith("open/")

        return answer()

    can_create = can_append = can_close = can_delete = can_read


class Revocable(BearerTokens):
    """Refuses more than the token does."""

    revoked: ClassVar[set[str]] = set()

    def can_read(self, user: Any, path: str, request: Any) -> Any:
        return path not in self.revoked and super().can_read(user, path, request)


class RevocableInside(BearerTokens):
    """Refuses more than the token does, where its parent decides."""

    def _allows(self, action: Any, path: str, request: Any) -> Any:
        return path not in Revocable.revoked and super()._allows(action, path, request)


class _Refusing:
    def _allows(self, action: Any, path: str, request: Any) -> Any:
        return path not in Revocable.revoked and super()._allows(action, path, request)


class RevocableByMixin(_Refusing, BearerTokens):
    """As `RevocableInside`, with a class of its own for the refusal."""


class RevocableByObject(BearerTokens):
    """As `RevocableInside`, for one object."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        allows = self._allows
        self._allows = (  # type: ignore[method-assign]
            lambda action, path, request: path not in Revocable.revoked and allows(action, path, request)
        )


class RevocableByAlias(BearerTokens):
    """As `RevocableInside`. It also names a method of its parent, as a class with several parents does."""

    can_read = BearerTokens.can_read

    def _allows(self, action: Any, path: str, request: Any) -> Any:
        return path not in Revocable.revoked and super()._allows(action, path, request)


class RevocableByLookup(BearerTokens):
    """As `RevocableInside`, wherever the method is looked up."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name != "_allows":
            return value
        return lambda action, path, request: path not in Revocable.revoked and value(action, path, request)


class Configured(BearerTokens):
    """Decides as its parent does about reads."""

    challenge = "Bearer realm=chat"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def can_append(self, user: Any, path: str, request: Any) -> bool:
        return False


class UnderMaintenance(Counting):
    """Allows nothing, and raises an error while the site is under maintenance."""

    is_on = False

    def can_read(self, user: Any, path: str, request: Any) -> Any:
        calls.append(path)
        if self.is_on:
            raise ServiceUnavailable("The site is under maintenance.")
        return False

    can_create = can_append = can_close = can_delete = can_read


class InThread(Counting):
    """May use the database."""

    in_memory = False


BEARER = {"CLASS": "django_durable_streams.permissions.BearerTokens", "KEY": KEY, "ALGORITHMS": ["HS256"]}
SIGNED = "django_durable_streams.permissions.SignedURLs"


def permission(name: str) -> str:
    return f"{__name__}.{name}"


SETTINGS: list[dict[str, Any]] = [
    {"PERMISSION_CLASSES": permission("Counting")},
    {"PERMISSION_CLASSES": permission("Raising")},
    {"PERMISSION_CLASSES": permission("Disguised")},
    {"PERMISSION_CLASSES": [permission("Raising"), BEARER]},
    {"PERMISSION_CLASSES": [SIGNED, BEARER]},
    {"PERMISSION_CLASSES": permission("Counting"), "PATH_PATTERNS": ["open/**", "secret/**"]},
]

TOKEN = jwt.encode(
    {"exp": time.time() + 3600, "streams": {"read": ["open/**"], "append": ["open/**"], "close": ["open/a"]}}, KEY
)

LINES: list[list[bytes]] = [
    [],
    [b"Stream-Closed: true"],
    [b"Stream-Closed: false"],
    [b"Stream-Forked-From: /v1/stream/secret/a"],
    [b"Authorization: Bearer " + TOKEN.encode()],
    [b"Authorization: bearer   " + TOKEN.encode() + b"  "],
    [b"Authorization: Bearer " + TOKEN.encode() + b"x"],
    [b"Authorization: Basic " + TOKEN.encode()],
    [
        b"Origin: https://evil.example",
        b"Cookie: sessionid=aaaaaaaaaaaaaaaa",
        b"Authorization: Bearer " + TOKEN.encode(),
    ],
]


def targets() -> list[str]:
    signed = sign("open/a", "read", "append", expires=60)
    return [
        "open/a",
        "secret/a",
        "open/%0a",
        "__ds/x",
        "open/a?offset=-1",
        "open/a?live=sse",
        "open/a?l%69ve=sse",
        f"open/a?token={signed}",
        f"secret/a?token={signed}",
        f"open/a?access_token={TOKEN}",
        "open/a?access_token=a&access_token=b",
        "open/a?%ff",
    ]


def request(method: str, target: str, lines: list[bytes]) -> FastPathRequest:
    data = [f"{method} /v1/stream/{target} HTTP/1.1".encode(), b"Host: testserver", *lines]
    head = request_heads.parse_once(b"\r\n".join(data))
    assert isinstance(head, request_heads.Head)
    place = MOUNT.place(head.path)
    assert place is not None
    return FastPathRequest(head, place, b"", CONNECTION)


@pytest.mark.parametrize("settings", SETTINGS)
async def test_the_verdict_is_the_same(settings: dict[str, Any]) -> None:
    decided = 0
    with override_streams(**settings):
        guard = current_guard()
        assert guard is not None
        for method, target, lines in product(("GET", "HEAD", "POST", "PUT", "DELETE"), targets(), LINES):
            first, second = request(method, target, lines), request(method, target, lines)
            at_once, later = None, None
            try:
                is_decided = guard.admit_at_once(first)
            except DurableStreamsError as error:
                is_decided, at_once = True, error
            if not is_decided:
                continue
            decided += 1
            try:
                await guard.admit(second)
            except DurableStreamsError as error:
                later = error
            assert (type(at_once), str(at_once)) == (type(later), str(later)), (method, target, lines)
            assert (at_once.headers if at_once else ()) == (later.headers if later else ())
            assert first.grant is second.grant is None
            assert first.refuse_body is second.refuse_body is None
    assert decided > 50


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_verdict_stays_the_same(settings: dict[str, Any]) -> None:
    """Whatever else was asked meanwhile, and whether or not a grant is remembered."""

    def verdict(method: str, target: str, lines: list[bytes]) -> object:
        guard = current_guard()
        assert guard is not None
        try:
            return guard.admit_at_once(request(method, target, lines))
        except DurableStreamsError as error:
            return type(error)

    asked = list(product(("GET", "HEAD", "POST", "PUT", "DELETE"), targets(), LINES))
    with override_streams(**settings):
        first = [verdict(*one) for one in asked]
        assert [verdict(*one) for one in reversed(asked)] == first[::-1]


@pytest.mark.parametrize("name", ["django_durable_streams.permissions.BearerTokens", permission("Configured")])
def test_a_token_is_looked_at_once_for_the_same_request(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    look = bearer._credential
    monkeypatch.setattr(bearer, "_credential", lambda asked: looks.append(asked) or look(asked))
    lines = [b"Authorization: Bearer " + TOKEN.encode()]
    with override_streams(PERMISSION_CLASSES={**BEARER, "CLASS": name}):
        guard = current_guard()
        assert guard is not None
        for _ in range(3):
            assert guard.admit_at_once(request("GET", "open/a", lines))
        assert len(looks) == 1
        for method, target, others in [
            ("HEAD", "open/a", lines),
            ("GET", "open/b", lines),
            ("GET", "open/a?offset=-1", lines),
            ("GET", "open/a?access_token=" + TOKEN, []),
        ]:
            looks.clear()
            guard.admit_at_once(request(method, target, others))
            assert len(looks) == 1, (method, target)


@pytest.mark.parametrize(
    "name",
    [
        "Revocable",
        "RevocableInside",
        "RevocableByMixin",
        "RevocableByObject",
        "RevocableByAlias",
        "RevocableByLookup",
    ],
)
def test_a_class_that_decides_otherwise_is_asked_each_time(name: str) -> None:
    lines = [b"Authorization: Bearer " + TOKEN.encode()]
    options = {**BEARER, "CLASS": permission(name)}
    with override_streams(PERMISSION_CLASSES=options):
        guard = current_guard()
        assert guard is not None
        assert guard.admit_at_once(request("GET", "open/a", lines))
        Revocable.revoked.add("open/a")
        try:
            with pytest.raises(DurableStreamsError):
                guard.admit_at_once(request("GET", "open/a", lines))
        finally:
            Revocable.revoked.clear()


@pytest.mark.parametrize("others", [[], [SIGNED]])
async def test_a_class_before_the_token_is_asked_each_time(others: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may raise an error, or count the requests."""
    lines = [b"Authorization: Bearer " + TOKEN.encode()]
    calls.clear()
    with override_streams(PERMISSION_CLASSES=[*others, permission("UnderMaintenance"), BEARER]):
        guard = current_guard()
        assert guard is not None
        for _ in range(3):
            assert guard.admit_at_once(request("GET", "open/a", lines))
        assert calls == ["open/a"] * 3
        monkeypatch.setattr(UnderMaintenance, "is_on", True)
        with pytest.raises(ServiceUnavailable):
            await guard.admit(request("GET", "open/a", lines))
        with pytest.raises(ServiceUnavailable):
            guard.admit_at_once(request("GET", "open/a", lines))


async def test_a_method_is_called_once() -> None:
    calls.clear()
    with override_streams(PERMISSION_CLASSES=permission("Counting")):
        guard = current_guard()
        assert guard is not None
        assert guard.admit_at_once(request("GET", "open/a", []))
        with pytest.raises(PermissionDenied):
            guard.admit_at_once(request("GET", "secret/a", []))
    assert calls == ["open/a", "secret/a"]


@pytest.mark.parametrize(
    "settings",
    [
        {"PERMISSION_CLASSES": permission("InThread")},
        {"PERMISSION_CLASSES": [permission("Counting"), permission("InThread")]},
        {"PERMISSION_CLASSES": "django_durable_streams.permissions.ModelPermissions"},
        {"PERMISSION_CLASSES": permission("Counting"), "RATE_LIMITS": {"read": "1/s"}},
        {"RATE_LIMITS": {"read": "1/s"}},
    ],
)
def test_what_may_wait_is_not_decided(settings: dict[str, Any]) -> None:
    with override_streams(**settings):
        guard = current_guard()
        assert guard is not None
        assert not guard.admit_at_once(request("GET", "open/a", []))


@pytest.mark.parametrize(
    ("method", "target", "lines"),
    [
        ("POST", "open/a", [b"Stream-Closed: true"]),
        ("PUT", "open/a", [b"Stream-Forked-From: /v1/stream/open/b"]),
        ("GET", "open/a?offset=-1&live=sse", []),
        ("GET", "open/a?offset=-1&l%69ve=sse", []),
    ],
)
def test_what_needs_more_than_one_check_is_not_decided(method: str, target: str, lines: list[bytes]) -> None:
    with override_streams(PERMISSION_CLASSES=permission("Counting")):
        guard = current_guard()
        assert guard is not None
        assert not guard.admit_at_once(request(method, target, lines))


def test_a_token_that_was_verified_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    lines = [b"Authorization: Bearer " + TOKEN.encode()]
    with override_streams(PERMISSION_CLASSES=BEARER):
        guard = current_guard()
        assert guard is not None
        assert guard.admit_at_once(request("GET", "open/a", lines))
        monkeypatch.setattr(time, "time", lambda: now + 7200)
        with pytest.raises(DurableStreamsError):
            guard.admit_at_once(request("GET", "open/a", lines))
