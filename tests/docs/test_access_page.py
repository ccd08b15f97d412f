"""docs/access.md says what is there."""

import inspect
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.test import RequestFactory, override_settings

from django_durable_streams import permissions
from django_durable_streams.access import guard, model_permissions, refusals, signed
from django_durable_streams.access.base import ACTIONS, Permission
from django_durable_streams.access.loading import make_permissions
from django_durable_streams.access.rates import parse_rate
from django_durable_streams.checks.access import check_permission
from django_durable_streams.checks.settings import check_settings
from django_durable_streams.conf import Config
from tests.docs.pages import README, ROOT, Block, blocks, code, section, table

PAGE = ROOT / "docs" / "access.md"
ROOMS = ROOT / "docs" / "howto" / "rooms.md"
TEXT = PAGE.read_text()
SETTINGS = [
    block
    for page in (PAGE, README)
    for block in blocks(page, "python")
    if "PERMISSION_CLASSES" in block.text or "RATE_LIMITS" in block.text
]

KINDS: dict[str, Any] = {
    name: value
    for name, value in vars(permissions).items()
    if inspect.isclass(value) and issubclass(value, Permission) and value is not Permission
}


def test_every_class_is_in_the_table() -> None:
    assert {code(row[0]) for row in table(section(PAGE, "Permissions"))} == set(KINDS)


def test_every_option_is_in_the_table() -> None:
    for name, _, options in table(section(PAGE, "Permissions")):
        shown = {option.lower() for option in re.findall(r"`([A-Z_]+)`", options)}
        assert shown == set(inspect.signature(KINDS[code(name)]).parameters), name


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_the_settings_that_are_shown_can_be_used(block: Block) -> None:
    scope: dict[str, Any] = {"DATABASES": {"default": {}}}
    exec(block.text, scope)
    with override_settings(DURABLE_STREAMS=scope["DURABLE_STREAMS"]):
        assert check_settings(None) == []
        assert check_permission(None) == []
        assert guard.current_guard() is not None


def test_only_staff_read_below_the_prefix_until_another_class_opens_it() -> None:
    (block,) = [one for one in blocks(PAGE, "python") if "StaffBelowInternal" in one.text]
    scope: dict[str, Any] = {"__name__": "shown"}
    exec(block.text, scope)
    reasons: list[object] = []
    permission = scope["StaffBelowInternal"]()
    request: Any = SimpleNamespace(
        explain=reasons.append, parameter=lambda name: signed.sign("internal/a", "read", expires=9)
    )
    holder = SimpleNamespace(is_staff=False, has_perm=lambda name: True)
    staff = SimpleNamespace(is_staff=True, has_perm=lambda name: True)
    assert permission.can_read(staff, "internal/a", request)
    assert permission.can_read(holder, "public", request)
    assert not permission.can_read(holder, "internal/a", request)
    assert reasons == ["Only staff use streams below internal/."]
    request.until = reasons.append
    assert signed.SignedURLs().can_read(holder, "internal/a", request)  # the warning of the page


@pytest.mark.django_db
def test_the_settings_for_a_page_of_another_site_let_browsers_send_both_cookies() -> None:
    (block,) = [one for one in blocks(PAGE, "python") if "CORS_ORIGINS" in one.text]
    values: dict[str, Any] = {}
    exec(block.text, values)
    with override_settings(**{name: value for name, value in values.items() if name.isupper()}):
        assert check_settings(None) == []
        assert check_permission(None) == []  # it compares CORS_ORIGINS with CSRF_TRUSTED_ORIGINS
        response = HttpResponse()
        request = RequestFactory().get("/")
        for middleware in (SessionMiddleware, CsrfViewMiddleware):
            middleware(lambda request: response).process_request(request)
        request.session["key"] = "value"
        get_token(request)
        SessionMiddleware(lambda request: response).process_response(request, response)
        CsrfViewMiddleware(lambda request: response).process_response(request, response)
    assert set(response.cookies) == {"sessionid", "csrftoken"}
    assert {(cookie["samesite"], cookie["secure"]) for cookie in response.cookies.values()} == {("None", True)}


def test_there_are_settings_to_test() -> None:
    assert len(SETTINGS) == 6


def test_the_section_on_signed_urls_begins_with_their_class() -> None:
    first = blocks(PAGE, "python").index
    (link, _) = [block for block in blocks(PAGE, "python") if "signed_url(" in block.text]
    before = blocks(PAGE, "python")[first(link) - 1]
    assert '"django_durable_streams.permissions.SignedURLs"' in before.text
    assert before.text in f"{section(PAGE, 'Signed URLs')}\n"


def test_absolute_links_have_the_host_and_https() -> None:
    (block,) = [block for block in blocks(PAGE, "python") if "build_absolute_uri(" in block.text]
    lines = block.text.splitlines()
    begin = "https://example.org/v1/stream/reports/2026?token="
    for headers, expected in (({"x-forwarded-proto": "https"}, begin), ({}, begin.replace("https", "http"))):
        request = RequestFactory().get("/", headers={"host": "example.org", **headers})
        for last, link in ((3, expected), (4, begin)):
            scope: dict[str, Any] = {"request": request}
            proxy = {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"), "ALLOWED_HOSTS": ["example.org"]}
            with override_settings(**proxy):
                exec("\n".join([*lines[:2], lines[last - 1]]), scope)
            assert scope["link"].startswith(link)


def test_the_class_that_is_shown_asks_for_the_path_of_the_rooms_stream() -> None:
    """The model is that of the guide on rooms, which a test in a browser follows."""
    (shown,) = [block.text for block in blocks(PAGE, "python") if "class Room" in block.text]
    (model,) = [block.text for block in blocks(ROOMS, "python") if "class Room" in block.text]
    fields = re.findall(r"^    (?:members|stream) = .+$", shown, re.MULTILINE)
    assert len(fields) == 2
    assert [field.removesuffix(")") in model for field in fields] == [True, True]
    classes = [block.text for page in (PAGE, ROOMS) for block in blocks(page, "python") if "Participants" in block.text]
    lines = [line for text in classes for line in text.splitlines() if "aexists" in line]
    assert len(lines) == 2
    assert len(set(lines)) == 1


def test_the_class_that_is_shown_works() -> None:
    (block,) = [block for block in blocks(PAGE, "python") if "class Participants" in block.text]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    kind = scope["Participants"]
    assert issubclass(kind, Permission)
    assert inspect.iscoroutinefunction(kind.can_append)
    assert kind.can_delete is Permission.can_delete


def test_the_claim_that_is_shown_can_be_read() -> None:
    from django_durable_streams.access.base import Action
    from django_durable_streams.access.bearer import _grants

    (block,) = blocks(PAGE, "json")
    assert set(_grants(json.loads(block.text)["streams"])) == {Action.READ, Action.APPEND}


def test_the_names_that_are_shown_are_the_codes() -> None:
    assert f"query parameter `{signed.PARAMETER}`" in " ".join(TEXT.split())
    assert f"logger `{refusals.logger.name}`" in " ".join(TEXT.split())
    assert all(f"`can_{action}`" in TEXT for action in ACTIONS)
    assert parse_rate("2000/10m") == (2000, 600)
    assert make_permissions(Config().permission_classes)[0].__class__ is model_permissions.ModelPermissions
    seconds = Config().reauthorize_interval + Config().auth_cache_seconds
    assert f"within {seconds:.0f} seconds by default" in " ".join(TEXT.split())
