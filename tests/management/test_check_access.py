"""`manage.py streams check-access`: it answers as a request would be, and says why."""

import sys
from contextlib import nullcontext, suppress
from datetime import timedelta
from io import StringIO
from types import ModuleType
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client, override_settings
from django.utils import timezone
from django.utils.translation import gettext_lazy

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Permission as StreamPermission
from django_durable_streams.permissions import SignedURLs, sign
from tests.access.test_bearer_tokens import BEARER, token
from tests.management.commands import streams
from tests.overriding import override_streams

PACKAGE = "django_durable_streams.permissions"
NEVER = 4_000_000_000
"""The end of a token that is made before the tests run."""

OWNER = {"CLASS": f"{PACKAGE}.Owner", "OWNER": {"users/{user.username}/**": ["read"], "all/**": ["list"]}}

pytestmark = pytest.mark.django_db(transaction=True)  # permissions of projects are asked in threads
MODEL = override_streams(PERMISSION_CLASSES=f"{PACKAGE}.ModelPermissions")


class ByHeader(StreamPermission):
    """Allows readers with a key at one host, by everything that a class of a project may look at."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        host = request.http_request.get_host()
        return host == "tea.example.org:8443" and request.headers.get("x-api-key") == "k" and request.method == "GET"

    credential_headers = ("X-Api-Key",)


@pytest.fixture(autouse=True)
def ada() -> User:
    return User.objects.create_user("ada")


def examined(*arguments: str) -> Any:
    """What the command prints as JSON, whatever its status."""
    output = StringIO()
    with suppress(CommandError):
        call_command("streams", "check-access", *arguments, "--json", stdout=output)
    (line,) = output.getvalue().splitlines()
    return msgspec.json.decode(line)


@MODEL
def test_the_missing_permission_of_a_user_is_named(ada: User) -> None:
    with pytest.raises(CommandError, match="ada may not read chat/42"):
        streams("check-access", "read", "/chat/42", "--user", "ada")
    ada.user_permissions.add(Permission.objects.get(codename="view_stream"))
    assert streams("check-access", "read", "chat/42", "--user", str(ada.pk)) == (
        "yes  ModelPermissions\nada may read chat/42. But there is no stream at this path, so the response is 404.\n"
    )
    with pytest.raises(CommandError, match="ada may not append chat/42"):
        streams("check-access", "append", "chat/42", "--user", "ada")


@override_streams(PERMISSION_CLASSES=f"{PACKAGE}.AllowAll")
def test_a_missing_stream_is_named_where_the_action_is_allowed() -> None:
    absence = "But there is no stream at this path, so the response is 404."
    expired = Stream.objects.create(path="expired", ttl=3600)
    Stream.objects.unguarded().filter(pk=expired.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    Stream.objects.create(path="present")
    for action in ("read", "append", "close", "delete"):
        assert streams("check-access", action, "a").endswith(f" may {action} a. {absence}\n")
        assert streams("check-access", action, "present").endswith(f" may {action} present.\n")
    assert absence in streams("check-access", "read", "expired")
    for arguments in (("create", "a"), ("list", "a"), ("subscribe", "a")):
        assert absence not in streams("check-access", *arguments)
    Stream.objects.create(path="gone").fork("fork")
    Stream.objects.get(path="gone").delete()
    assert streams("check-access", "read", "gone").endswith(f" {absence.replace('404', '410')}\n")
    assert [examined("read", path)["exists"] for path in ("a", "gone", "present")] == [False, False, True]
    with override_streams(PERMISSION_CLASSES=OWNER):
        assert examined("read", "a")["exists"] is None


@pytest.mark.parametrize(
    ("classes", "arguments", "is_allowed", "reason"),
    [
        (OWNER, ("read", "users/ada/x", "--user", "ada"), True, ""),
        (OWNER, ("read", "users/bob/x", "--user", "ada"), False, "No pattern of OWNER"),
        (OWNER, ("delete", "users/ada/x", "--user", "ada"), False, "No pattern of OWNER"),
        (OWNER, ("read", "users/ada/x"), False, "logged in"),
        (OWNER, ("list", "all/", "--user", "ada"), True, ""),
        (OWNER, ("list", "", "--user", "ada"), False, "No pattern of OWNER"),
        (OWNER, ("subscribe", "id", "--user", "ada"), False, ""),
        (f"{PACKAGE}.SignedURLs", ("read", "a", "--token", sign("a", "read", expires=86_400)), True, ""),
        (f"{PACKAGE}.SignedURLs", ("read", "a", "--token", sign("a", "read", expires=-60)), False, "expired at"),
        (f"{PACKAGE}.SignedURLs", ("close", "a", "--token", sign("a", "read", expires=86_400)), False, "is for: read."),
        (BEARER, ("append", "a", "--token", token({"append": ["a"]}, exp=NEVER)), True, ""),
        (BEARER, ("append", "b", "--token", token({"append": ["a"]}, exp=NEVER)), False, "no pattern for this action"),
        (f"{__name__}.ByHeader", ("read", "a", "--header", "X-Api-Key: k", "--host", "tea.example.org:8443"), True, ""),
        (
            f"{__name__}.ByHeader",
            ("read", "a", "--header", "X-Api-Key: k", "--header", "Host: tea.example.org:8443"),
            True,
            "",
        ),
        (f"{__name__}.ByHeader", ("read", "a", "--header", "X-Api-Key: k", "--host", "localhost"), False, ""),
        (f"{PACKAGE}.AllowAll", ("delete", "a"), True, ""),
    ],
)
def test_every_class_answers(
    classes: Any, arguments: tuple[str, ...], is_allowed: bool, reason: str, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    with override_streams(PERMISSION_CLASSES=classes):
        answer = examined(*arguments)
    assert answer["allowed"] is is_allowed
    assert reason in " ".join(answer["permissions"][0]["reasons"])


@pytest.mark.parametrize(
    ("owner", "action", "patterns"),
    [
        ("users/{user.username}/**", "read", "users/ada/**"),
        (["/users/{user.username}/**", "news"], "append", "/users/ada/**, news"),
        ({"users/{user.username}/{user.team.slug}": ["read"]}, "read", "users/ada/{user.team.slug}"),
        ({"users/{user.username}/**": ["read"]}, "append", "none"),
    ],
)
def test_the_patterns_of_the_user_are_shown(owner: Any, action: str, patterns: str) -> None:
    with override_streams(PERMISSION_CLASSES={**OWNER, "OWNER": owner}):
        (answer,) = examined(action, "users/bob/x", "--user", "ada")["permissions"]
        assert answer["reasons"][-1] == f"Patterns for ada to {action}: {patterns}."
        (answer,) = examined(action, "users/bob/x")["permissions"]
        assert answer["reasons"] == ["OWNER is for users who are logged in."]
    inside = {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": {**OWNER, "OWNER": owner}}
    with override_streams(PERMISSION_CLASSES=inside):
        (answer,) = examined(action, "users/bob/x", "--user", "ada")["permissions"]
        assert answer["reasons"][-1].startswith("Patterns for ada")


@pytest.mark.parametrize(
    ("url_prefix", "text"),
    [
        (None, "/v1/stream/users/ada/a%20b"),
        (None, "https://tea.example.org/v1/stream/users/ada/a%20b"),
        (None, "http://localhost:8000/v1/stream/users/ada/a%20b?offset=-1&live=sse"),
        ("/live/", "/live/users/ada/a%20b"),
        ("https://tea.example.org/live/", "https://tea.example.org/live/users/ada/a%20b"),
        ("https://tea.example.org/", "https://tea.example.org/users/ada/a%20b"),
        (None, "/users/ada/a b"),
    ],
)
def test_the_url_of_a_stream_means_its_path(url_prefix: str | None, text: str) -> None:
    settings = {} if url_prefix is None else {"URL_PREFIX": url_prefix}
    with override_streams(PERMISSION_CLASSES=OWNER, **settings):
        answer = examined("read", text, "--user", "ada")
    assert (answer["path"], answer["allowed"]) == ("users/ada/a b", True)


def test_a_path_needs_no_urls_of_the_project_and_no_valid_settings(settings: Any) -> None:
    del settings.ROOT_URLCONF
    with override_streams(PERMISSION_CLASSES=OWNER):
        for text in ("/users/ada/x", "/v1/stream/users/ada/x"):
            assert examined("read", text, "--user", "ada")["path"] == "users/ada/x"
    with override_streams(NO_SETTING=1), pytest.raises(CommandError, match="The settings are invalid"):
        streams("check-access", "read", "/users/ada/x", "--user", "ada")


def test_a_path_that_looks_like_a_url_is_named() -> None:
    with override_streams(PERMISSION_CLASSES=OWNER):
        (note,) = examined("read", "v1/stream/users/ada/x", "--user", "ada")["notes"]
    assert note.endswith("Give the path below the root of the streams: users/ada/x")
    with pytest.raises(CommandError, match="its path does not begin with /v1/stream/"):
        streams("check-access", "read", "https://tea.example.org/other/users/ada/x")


def test_one_class_that_allows_is_enough_and_all_answer() -> None:
    with override_streams(PERMISSION_CLASSES=[f"{PACKAGE}.SignedURLs", OWNER]):
        answer = examined("read", "users/ada/x", "--user", "ada")
    assert answer["allowed"]
    assert [one["is_allowed"] for one in answer["permissions"]] == [False, True]
    assert "no token" in answer["permissions"][0]["reasons"][0]


@pytest.mark.parametrize("path", ["users/ada/x", "https://tea.example.org/v1/stream/users/ada/x?token=x"])
def test_a_token_that_no_class_reads_is_named(path: str) -> None:
    token = [] if "token" in path else ["--token", "x"]
    with override_streams(PERMISSION_CLASSES=[OWNER]):
        sentence = "The URL has a token, and no class of PERMISSION_CLASSES reads it for this action."
        assert sentence in examined("read", path, *token)["notes"]
        assert examined("read", "users/ada/x", "--user", "ada", *token)["notes"] == []  # who may needs no note
        assert examined("read", "users/ada/x")["notes"] == []
    for classes in (f"{PACKAGE}.SignedURLs", BEARER):
        with override_streams(PERMISSION_CLASSES=[OWNER, classes]):
            assert examined("read", "users/ada/x", "--token", "x")["notes"] == []


def test_a_pattern_that_misses_by_a_slash_is_explained() -> None:
    with override_streams(PERMISSION_CLASSES={**OWNER, "OWNER": ["/reports/{user.username}/**"]}):
        (note,) = examined("read", "reports/ada/a", "--user", "ada")["notes"]
        assert "No path matches '/reports/{user.username}/**': a path has no slash at its ends" in note
        assert note.endswith("(durable_streams.W028)")
        with override_settings(SILENCED_SYSTEM_CHECKS=["durable_streams.W028"]):
            assert examined("read", "reports/ada/a", "--user", "ada")["notes"] == []
    with override_streams(PERMISSION_CLASSES={**OWNER, "OWNER": ["/reports/**", "all/**"]}):
        assert examined("read", "all/a", "--user", "ada")["notes"] == []


def test_settings_that_decide_besides_the_classes_are_named() -> None:
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.AllowAll", PATH_PATTERNS=["chat/*"]):
        assert examined("create", "chat/1")["allowed"]
        answer = examined("create", "other")
    assert not answer["allowed"]
    assert "PATH_PATTERNS" in answer["notes"][0]
    with override_streams(REGISTRY_PATH="all-streams"):
        assert "registry" in examined("read", "all-streams", "--user", "ada")["notes"][0]


@pytest.mark.parametrize("action", ["create", "append", "close", "delete"])
def test_nobody_changes_the_registry(action: str) -> None:
    with override_streams(PERMISSION_CLASSES=f"{PACKAGE}.AllowAll", REGISTRY_PATH="all-streams"):
        assert not examined(action, "all-streams")["allowed"]
        assert examined(action, "other")["allowed"]


class LinkOrStaff(SignedURLs):
    """Looks at the user, and does not say so: `needs_user` is that of its base."""

    in_memory = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        request.explain(gettext_lazy("Yes"))  # type: ignore[arg-type]
        return bool(user.is_staff) or super().can_read(user, path, request)


@pytest.mark.parametrize("needs_user", [False, True])
def test_a_user_whom_the_server_does_not_load_does_not_count(
    ada: User, monkeypatch: pytest.MonkeyPatch, needs_user: bool
) -> None:
    """`tests.access.test_identities` has the same for requests."""
    monkeypatch.setattr(LinkOrStaff, "needs_user", needs_user)
    User.objects.filter(pk=ada.pk).update(is_staff=True)
    with override_streams(PERMISSION_CLASSES=f"{__name__}.LinkOrStaff"):
        answer = examined("read", "a", "--user", "ada")
    assert answer["allowed"] is needs_user
    assert ("No permission class uses the user" in str(answer["notes"])) is not needs_user


@MODEL
@pytest.mark.parametrize("backend", ["ModelBackend", "AllowAllUsersModelBackend"])
def test_a_backend_may_accept_users_who_are_not_active(ada: User, backend: str) -> None:
    ada.is_active = False
    ada.save()
    with override_settings(AUTHENTICATION_BACKENDS=[f"django.contrib.auth.backends.{backend}"]):
        assert (examined("read", "a", "--user", "ada")["user"] == ada.pk) is (backend != "ModelBackend")


@MODEL
def test_a_user_who_is_not_active_counts_as_no_login(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(is_active=False, is_superuser=True)
    answer = examined("read", "a", "--user", "ada")
    assert (answer["allowed"], answer["user"]) == (False, None)
    assert "not active" in answer["notes"][0]


def test_the_session_of_a_cookie_counts_as_its_user(ada: User) -> None:
    client = Client()
    client.force_login(ada)
    cookie = ("--header", f"Cookie: a=b; sessionid={client.cookies['sessionid'].value}")
    with override_streams(PERMISSION_CLASSES=OWNER):
        answer = examined("read", "users/ada/x", *cookie)
        assert (answer["allowed"], answer["user"], answer["notes"]) == (True, ada.pk, [])
        assert examined("read", "users/ada/x", "--header", "cookie: a=b")["notes"] == [
            "The request has no session cookie (sessionid)."
        ]
        User.objects.filter(pk=ada.pk).update(is_active=False)
        answer = examined("read", "users/ada/x", *cookie)
    assert (answer["allowed"], answer["user"]) == (False, None)
    assert answer["notes"] == ["The session cookie (sessionid) leads to no user here."]


class Misnamed(StreamPermission):
    """Has a method that nobody calls."""

    def can_reads(self, user: Any, path: str, request: AccessRequest) -> bool:
        return True


MISNAMED = f"{__name__}.Misnamed"
INSIDE = {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": MISNAMED}


@pytest.mark.parametrize(
    ("classes", "action", "reason"),
    [
        (MISNAMED, "read", "Misnamed has no can_read, so it refuses. Nothing calls its can_reads."),
        (MISNAMED, "list", "Misnamed has no can_list, so it refuses. Nothing calls its can_reads."),
        (INSIDE, "append", "Misnamed has no can_append, so it refuses. Nothing calls its can_reads."),
        (f"{__name__}.ByHeader", "close", "ByHeader has no can_close, so it refuses."),
        (f"{__name__}.ByHeader", "read", "it returns False, and gives no reason."),
        (OWNER, "subscribe", "Owner has no can_subscribe, so it refuses."),
    ],
)
def test_a_class_without_the_method_is_no_class_that_says_no(classes: Any, action: str, reason: str) -> None:
    output = StringIO()
    with override_streams(PERMISSION_CLASSES=classes), pytest.raises(CommandError):
        call_command("streams", "check-access", action, "a", stdout=output)
    assert f": {reason}\n" in output.getvalue()


class Failing(StreamPermission):
    """Fails in a thread."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        raise ValueError("no\ntea")


class FailingInLoop(StreamPermission):
    """Fails in a coroutine, in another module."""

    async def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        msgspec.json.decode(b"{")
        return True


class FailingWithUser(StreamPermission):
    """Fails before it is asked."""

    def prepare(self, user: Any) -> None:
        raise KeyError("team")


@pytest.mark.parametrize("is_json", [False, True])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Failing", "ValueError: no\\u000atea"),
        ("FailingInLoop", "DecodeError: Input data was truncated"),
        ("FailingWithUser", "KeyError: 'team'"),
    ],
)
def test_a_class_that_fails_is_a_line_with_its_place(name: str, error: str, is_json: bool) -> None:
    flags = ["--json"] if is_json else []
    for classes, is_allowed in (
        ([f"{__name__}.{name}", MISNAMED], False),
        ([f"{__name__}.{name}", f"{PACKAGE}.ReadOnly"], False),
        ([f"{PACKAGE}.ReadOnly", f"{__name__}.{name}"], True),
    ):
        output = StringIO()
        expected = nullcontext() if is_allowed else pytest.raises(CommandError, match="may not read")
        with override_streams(PERMISSION_CLASSES=classes), expected:
            call_command("streams", "check-access", "read", "a", *flags, stdout=output)
        text = output.getvalue().replace("\\\\", "\\")
        assert error in text
        assert f"It fails, so requests get 500. It raises {error}" in text
        assert "test_check_access.py, line " in text


def test_nothing_is_written(ada: User) -> None:
    examined("read", "a", "--user", "ada")
    ada.refresh_from_db()
    assert ada.last_login is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("read", "a", "--user", "nobody"), "no user with the name or primary key nobody"),
        (("read", "a//b"), "path"),
        (("fly", "a"), "invalid choice"),
        (("read", "a", "--header", "x"), "Write 'Name: value'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        streams("check-access", *arguments)


def test_two_classes_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("other_permissions")
    module.ByHeader = type("ByHeader", (StreamPermission,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    output = StringIO()
    classes = [f"{PACKAGE}.SignedURLs", f"{__name__}.ByHeader", f"{module.__name__}.ByHeader"]
    with override_streams(PERMISSION_CLASSES=classes), suppress(CommandError):
        call_command("streams", "check-access", "read", "a", stdout=output)
    names = [line.split()[1].rstrip(":") for line in output.getvalue().splitlines() if line.startswith("no ")]
    assert names == ["SignedURLs", *classes[1:]]
