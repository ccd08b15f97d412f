from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings

from django_durable_streams.checks.access import check_addresses, check_cross_origin, check_open, check_permission
from django_durable_streams.conf import config
from django_durable_streams.permissions import AccessRequest, AllowAll, Permission, ReadOnly
from django_durable_streams.server.validation import config_findings
from tests.overriding import override_streams

HERE = "tests.checks.test_access"
PACKAGE = "django_durable_streams.permissions"
JWT = {"CLASS": f"{PACKAGE}.BearerTokens", "KEY": "x" * 32, "ALGORITHMS": ["HS256"]}
OWNER = {"CLASS": f"{PACKAGE}.Owner", "OWNER": "users/{user.pk}/**"}


def ids(permission: Any) -> list[str | None]:
    with override_streams(PERMISSION_CLASSES=permission):
        return [message.id for message in check_permission(None)]


@pytest.mark.parametrize(
    "permission",
    [
        f"{PACKAGE}.ModelPermissions",
        f"{PACKAGE}.ReadOnly",
        f"{PACKAGE}.AllowAll",
        JWT,
        OWNER,
        {"CLASS": f"{PACKAGE}.RestFramework"},
        [f"{PACKAGE}.SignedURLs", OWNER],
    ],
    ids=str,
)
def test_what_is_shipped_is_fine(permission: Any) -> None:
    assert ids(permission) == []


@pytest.mark.parametrize(
    "permission",
    ["no.such.Class", "os.path.join", 5, {"CLASS": f"{PACKAGE}.Owner"}, {**JWT, "ALGORITHMS": ["none"]}, []],
    ids=str,
)
def test_a_permission_that_cannot_be_made_is_an_error(permission: Any) -> None:
    assert ids(permission) == ["durable_streams.E005"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("users/{user.pk}/{user.username}", []),
        ("users/{user.is_staff}/{user.date_joined.year}", []),
        ("**", []),
        ("/users/{user.pk}/**", ["W028"]),
        ("users/{user.pk}/", ["W028"]),
        ("users//{user.pk}/**", ["W028"]),
        ("users/{user.uuid}/**", ["W029"]),
        ("{user.nothing}/{user.pk}/{user.team.slug}/", ["W028", "W029", "W029"]),
        ("users/{user.get_username}", ["W029"]),
        ("users/{user.groups}", ["W029"]),
    ],
)
def test_a_pattern_of_owner_that_no_path_matches_is_a_warning(pattern: str, expected: list[str]) -> None:
    assert ids({**OWNER, "OWNER": [pattern]}) == [f"durable_streams.{id}" for id in expected]
    inside = {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": {**OWNER, "OWNER": {pattern: ["read"]}}}
    assert ids([f"{PACKAGE}.SignedURLs", inside]) == [f"durable_streams.{id}" for id in expected]


class WrongArguments(Permission):
    def can_read(self, user: Any) -> bool:  # type: ignore[override]
        return True


class WithoutSelf(Permission):
    def can_read(user, path, request):  # type: ignore
        return True


class OneMore(Permission):
    def can_read(self, user: Any, path: str, request: Any, extra: int) -> bool:  # type: ignore[override]
        return True


class Keyword(Permission):
    def can_read(self, user: Any, path: str, request: Any, *, extra: int) -> bool:  # type: ignore[override]
        return True


class Misspelt(Permission):
    def can_raed(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True


def test_methods_that_cannot_be_called_or_never_are() -> None:
    expected = "besides self it gets 3 (user, path, request), and takes"
    for name, difference in (
        ("WrongArguments", f"{expected} 1 (user)"),
        ("WithoutSelf", f"{expected} 2 (path, request)"),
        ("OneMore", f"{expected} 4 (user, path, request, extra)"),
        ("Keyword", "it wants extra by keyword"),
    ):
        with override_streams(PERMISSION_CLASSES=f"{HERE}.{name}"):
            (message,) = check_permission(None)
        assert (message.id, message.msg) == (
            "durable_streams.E006",
            f"{name}.can_read cannot be called: {difference}.",
        )
    with override_streams(PERMISSION_CLASSES=f"{HERE}.Misspelt"):
        (message,) = check_permission(None)
    assert (message.id, message.hint) == ("durable_streams.W001", "Did you mean can_read?")


def without(*apps: str) -> override_settings:
    return override_settings(INSTALLED_APPS=[app for app in settings.INSTALLED_APPS if app not in apps])


def test_users_have_to_be_there_where_they_are_asked_about() -> None:
    with without("django.contrib.auth", "django.contrib.admin"):
        assert ids(OWNER) == ["durable_streams.E007"]
        assert ids([f"{PACKAGE}.SignedURLs", JWT]) == []
    with without("django.contrib.sessions"):
        assert ids(OWNER) == ["durable_streams.W003"]
        assert ids(JWT) == []


class OwnMiddleware:
    pass


@pytest.mark.parametrize("middleware", [[], [f"{HERE}.OwnMiddleware"], ["no.such.Middleware"]], ids=str)
def test_users_have_to_be_logged_in_at_the_urls_too(middleware: list[str]) -> None:
    with override_settings(MIDDLEWARE=middleware):
        assert ids(OWNER) == ["durable_streams.W004"]
        assert ids(f"{PACKAGE}.SignedURLs") == []
        with override_settings(ROOT_URLCONF="tests.checks.no_streams"):
            assert ids(OWNER) == []


def test_shared_caches_are_for_what_everybody_may_read() -> None:
    for permission, expected in ((OWNER, ["durable_streams.W005"]), (f"{PACKAGE}.ReadOnly", [])):
        with override_streams(CACHE_SCOPE="public", PERMISSION_CLASSES=permission):
            assert [message.id for message in check_permission(None)] == expected


class NotOpen(ReadOnly):
    def can_read(self, user: Any, path: str, request: Any) -> bool:
        return False


def test_a_subclass_of_an_open_class_is_not_open() -> None:
    with override_streams(CACHE_SCOPE="public", PERMISSION_CLASSES="tests.checks.test_access.NotOpen"):
        assert [message.id for message in check_permission(None)] == ["durable_streams.W005"]


@pytest.mark.parametrize(
    ("origins", "trusted", "expected"),
    [
        ([], [], 0),
        (["*"], [], 0),
        (["https://app.example"], [], 1),
        (["https://app.example"], ["https://app.example"], 0),
        (["https://app.example"], ["https://*.example"], 0),
        (["https://app.example"], ["http://*.example"], 1),
        (["https://app.example", "https://b.example"], ["https://app.example"], 1),
    ],
)
def test_pages_that_read_with_a_session_may_write_with_it_too(
    origins: list[str], trusted: list[str], expected: int
) -> None:
    with (
        override_settings(CSRF_TRUSTED_ORIGINS=trusted, SESSION_COOKIE_SAMESITE="None"),
        override_streams(CORS_ORIGINS=origins, PERMISSION_CLASSES=OWNER),
    ):
        assert [message.id for message in check_cross_origin(None)] == ["durable_streams.W021"] * expected
    with override_streams(CORS_ORIGINS=origins, PERMISSION_CLASSES=f"{PACKAGE}.AllowAll"):
        assert check_cross_origin(None) == []


@pytest.mark.parametrize(
    ("origin", "hosts", "is_apart"),
    [
        ("https://app.other.com", ["api.example.com"], True),
        ("https://app.other.com", ["api.example.com", ".other.com"], False),
        ("https://app.example.com", ["api.example.com"], False),
        ("https://example.com", ["api.example.com"], False),
        ("https://app.example.com", [".example.com"], False),
        ("https://a.co.uk", ["b.co.uk"], False),  # nobody here knows that this suffix is public
        ("https://app.other.com", ["*"], False),
        ("https://app.other.com", ["api.example.com", "*"], False),
        ("*", ["api.example.com"], False),
        ("http://localhost:5173", ["127.0.0.1"], True),
        ("http://localhost:5173", ["api.example.com", "localhost"], False),
        ("http://app.localhost:5173", ["localhost"], False),
        ("http://10.0.0.1:5173", ["10.0.0.2"], True),
        ("http://[::1]:5173", ["[::1]"], False),
        ("capacitor://localhost", ["api.example.com"], True),
    ],
)
def test_pages_that_are_surely_of_another_site_have_no_session_cookie(
    origin: str, hosts: list[str], is_apart: bool
) -> None:
    def ids_with(permission: Any, same_site: Any) -> list[str | None]:
        with (
            override_settings(ALLOWED_HOSTS=hosts, SESSION_COOKIE_SAMESITE=same_site, CSRF_TRUSTED_ORIGINS=[origin]),
            override_streams(CORS_ORIGINS=[origin], PERMISSION_CLASSES=permission),
        ):
            return [message.id for message in check_cross_origin(None)]

    for limit in ("Lax", "Strict", "lax"):
        assert ids_with(OWNER, limit) == ["durable_streams.W031"] * is_apart
    for none in ("None", None, False):
        assert ids_with(OWNER, none) == []
    for permission in ([f"{PACKAGE}.SignedURLs", OWNER], [JWT, OWNER], f"{PACKAGE}.ReadOnly"):
        assert ids_with(permission, "Lax") == []


def test_the_hosts_of_debug_count_where_no_host_is_allowed() -> None:
    for debug, origin, expected in (
        (True, "http://localhost:5173", 0),
        (True, "http://127.0.0.1:5173", 0),
        (True, "https://app.other.com", 1),
        (False, "https://app.other.com", 0),
    ):
        with (
            override_settings(DEBUG=debug, ALLOWED_HOSTS=[], CSRF_TRUSTED_ORIGINS=[origin]),
            override_streams(CORS_ORIGINS=[origin], PERMISSION_CLASSES=OWNER),
        ):
            assert [message.id for message in check_cross_origin(None)] == ["durable_streams.W031"] * expected


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\r\ny", "ü"])
def test_a_header_that_is_none_is_not_allowed(name: str) -> None:
    with override_streams(CORS_ALLOW_HEADERS=["x-fine", name]):
        assert [message.id for message in check_cross_origin(None)] == ["durable_streams.E004"]


@pytest.mark.parametrize(
    ("limits", "proxies", "expected"),
    [
        ({}, [], []),
        ({"read": "1/s"}, [], ["W022"]),
        ({"read": "1/s"}, ["127.0.0.1"], []),
        ({"read": "1/s"}, ["10.0.0.0/8", "0.0.0.0/0"], ["W023"]),
        ({}, ["::/0"], ["W023"]),
        ({"read": "1/s"}, ["rubbish"], []),
    ],
)
def test_clients_are_told_apart_and_do_not_choose_who_they_are(
    limits: dict[str, str], proxies: list[str], expected: list[str]
) -> None:
    with override_streams(RATE_LIMITS=limits, TRUSTED_PROXIES=proxies):
        assert [message.id for message in check_addresses(None)] == [f"durable_streams.{name}" for name in expected]


class OpenExceptForSubscriptions(AllowAll):
    def can_subscribe(self, user: Any, subscription_id: str, request: AccessRequest) -> bool:
        return False


@pytest.mark.django_db
def test_what_is_open_is_a_warning_before_it_is_deployed() -> None:
    open_class, almost = f"{PACKAGE}.AllowAll", f"{HERE}.OpenExceptForSubscriptions"
    for permission, expected in ((open_class, 1), (almost, 1), ([OWNER, open_class], 1), (OWNER, 0), ("x", 0)):
        with override_streams(PERMISSION_CLASSES=permission):
            assert [message.id for message in check_open(None)] == ["durable_streams.W002"] * expected
    for deploy in (True, False):
        messages = {message.id for message in run_checks(include_deployment_checks=deploy)}
        assert ("durable_streams.W002" in messages) is deploy


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        *[(origin, True) for origin in ("*", "https://app.example.com", "http://localhost:5173", "http://[::1]:8000")],
        *[(origin, True) for origin in ("capacitor://localhost", "https://xn--bcher-kva.example", "https://a.b:8443")],
        *[(origin, False) for origin in ("null", "", "https://", "app.example.com", "https://app.example.com/")],
        *[
            (origin, False)
            for origin in ("https://App.example.com", "HTTPS://app.example.com", "https://*.example.com")
        ],
        *[
            (origin, False)
            for origin in ("https://a.b:443", "http://a.b:80", "http://[::1]:80", "https://a.b, https://c")
        ],
    ],
)
def test_what_no_browser_sends_as_the_origin_of_one_site_is_refused(origin: str, fine: bool) -> None:
    with override_streams(CORS_ORIGINS=[origin]):
        messages = [finding.message for finding in config_findings(config())]
    assert messages == ([] if fine else [f"CORS_ORIGINS: {origin!r} is not an origin as browsers send it."])
