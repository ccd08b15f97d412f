"""The check that users may read the streams of their chats."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.backends import ModelBackend
from django.core.checks import run_checks
from django.test import override_settings
from django.urls import include, path

from django_durable_streams.contrib.ai import checks
from django_durable_streams.contrib.ai.permissions import OwnChats
from django_durable_streams.contrib.ai.views import VercelChat
from django_durable_streams.permissions import ModelPermissions, Owner
from tests.overriding import override_streams

PACKAGE = "django_durable_streams.permissions"
MODELS = f"{PACKAGE}.ModelPermissions"


class ForAll(ModelPermissions):
    """Allows more than its base."""

    def can_read(self, user: Any, path: str, request: Any) -> bool:
        return True


class OwnerOrMore(Owner):
    def can_read(self, user: Any, path: str, request: Any) -> bool:
        return True


class Generous(ModelBackend):
    """Grants permissions that no row has."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return True


class Named(ModelBackend):
    """Finds users in another way, and grants nothing."""

    def get_user(self, user_id: Any) -> None:
        return None


class OtherPaths(OwnChats):
    def path(self, user: Any, chat_id: str) -> str:
        return f"rooms/{chat_id}"


class WithStreams:
    urlpatterns = [*VercelChat.urls("api/chat"), path("s/", include("django_durable_streams.urls"))]


class WithoutStreams:
    urlpatterns = VercelChat.urls("api/chat")


class WithoutChats:
    urlpatterns = [path("s/", include("django_durable_streams.urls"))]


@pytest.fixture(autouse=True)
def _urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=WithStreams), override_streams(PERMISSION_CLASSES=MODELS):
        yield


def owner(patterns: Any, name: str = f"{PACKAGE}.Owner") -> dict[str, Any]:
    return {"CLASS": name, "OWNER": patterns}


def warnings() -> list[str | None]:
    """The ids of this check, as `manage.py check` runs it."""
    return [message.id for message in run_checks() if message.id == "durable_streams.W030"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "classes",
    [
        MODELS,
        [MODELS],
        owner({"users/{user.pk}/**": ["read"]}),
        owner({"chats/{user.pk}/**": ["append", "list"]}),
        [MODELS, owner("users/{user.pk}/**")],
        {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": MODELS},
        {"CLASS": f"{PACKAGE}.RestFramework", "PERMISSION": owner("news")},
    ],
)
def test_chats_that_no_user_may_read_are_named(classes: Any) -> None:
    with override_streams(PERMISSION_CLASSES=classes):
        (message,) = [one for one in run_checks() if one.id == "durable_streams.W030"]
    assert "OWNER: {'chats/{user.pk}/**': ['read']}" in str(message.hint)
    assert "Do not grant users the permission view_stream" in str(message.hint)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "classes",
    [
        owner({"chats/{user.pk}/**": ["read"]}),
        [MODELS, owner("chats/{user.pk}/**")],
        owner("{user.username}/**"),
        owner("*/{user.pk}/*"),
        owner("**"),
        owner("users/**", f"{__name__}.OwnerOrMore"),
        f"{PACKAGE}.AllowAll",
        f"{PACKAGE}.ReadOnly",
        [MODELS, f"{PACKAGE}.SignedURLs"],
        f"{__name__}.ForAll",
        [MODELS, f"{__name__}.ForAll"],
        "no.such.Class",
    ],
)
def test_other_classes_are_no_false_alarm(classes: Any) -> None:
    with override_streams(PERMISSION_CLASSES=classes):
        assert warnings() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "settings",
    [
        {"ROOT_URLCONF": WithoutStreams},
        {"ROOT_URLCONF": WithoutChats},
        {"AUTHENTICATION_BACKENDS": [f"{__name__}.Generous"]},
        {"AUTHENTICATION_BACKENDS": ["django.contrib.auth.backends.ModelBackend", f"{__name__}.Generous"]},
    ],
)
def test_other_projects_are_no_false_alarm(settings: dict[str, Any]) -> None:
    with override_settings(**settings):
        assert warnings() == []


@pytest.mark.django_db
def test_a_backend_that_grants_nothing_changes_nothing() -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.Named"]):
        assert warnings() == ["durable_streams.W030"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "setting",
    [
        {"AI_PERMISSION_CLASS": "django_durable_streams.contrib.ai.permissions.AnonymousChats"},
        {"AI_PERMISSION_CLASS": f"{__name__}.OtherPaths"},
        {"AI_PERMISSION_CLASS": "no.such.Class"},
        {"NO_SETTING": 1},
    ],
)
def test_chats_with_other_owners_and_paths_are_no_false_alarm(setting: dict[str, Any]) -> None:
    with override_streams(PERMISSION_CLASSES=MODELS, **setting):
        assert warnings() == []


@pytest.mark.django_db
def test_streams_of_the_asgi_application_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(ROOT_URLCONF=WithoutStreams):
        for is_served in (True, False):
            monkeypatch.setattr(checks, "asgi_module_names_streams", lambda is_served=is_served: is_served)
            assert bool(warnings()) is is_served


@pytest.mark.parametrize(
    ("setting", "message"),
    [("no.such.Class", "No module named 'no'"), ("tests.ai.test_views.AsynchronousAllows", "is `async def`")],
)
def test_a_class_that_cannot_be_asked_is_an_error(setting: str, message: str) -> None:
    with override_streams(AI_PERMISSION_CLASS=setting):
        (error,) = [one for one in checks.check_answers(None) if one.id == "durable_streams.E012"]
    assert message in error.msg
