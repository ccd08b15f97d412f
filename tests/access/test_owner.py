"""Streams that belong to users by where they are, and patterns of paths."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.access.patterns import pattern
from django_durable_streams.models import Stream
from django_durable_streams.permissions import Owner
from tests.access.conftest import log_in_at_django
from tests.access.operations import TEXT
from tests.access.visitors import Visitor
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

CLASS = "django_durable_streams.permissions.Owner"


def user(**fields: Any) -> Any:
    return SimpleNamespace(is_authenticated=True, **{"pk": 7, "username": "ann", **fields})


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        ("a", ["a"], ["b", "a/b", "aa", "A", "a\n"]),
        ("chat/*", ["chat/1", "chat/x.y"], ["chat", "chat/1/2", "x/chat/1"]),
        ("chat/*/log", ["chat/1/log"], ["chat/log", "chat/1/2/log"]),
        ("room-*", ["room-1"], ["room-", "room-1/x"]),
        ("chat/**", ["chat/1", "chat/1/2"], ["chat", "chats/1"]),
        ("**", ["a", "a/b/c"], []),
        ("a.b/(x)/[y]", ["a.b/(x)/[y]"], ["aXb/(x)/[y]", "a.b/x/y"]),
        ("users/{user.pk}/**", ["users/7/x"], ["users/8/x", "users/77/x", "users/7"]),
        ("{user.username}/{user.pk}", ["ann/7"], ["ann/8", "bob/7", "7/ann"]),
    ],
)
def test_patterns(text: str, matching: list[str], others: list[str]) -> None:
    assert [path for path in matching + others if pattern(text).matches(path, user())] == matching


@pytest.mark.parametrize(
    "text",
    ["", None, 5, "a**", "**/a", "a/**/b", "***", "{user}", "{user.}", "{user._meta}", "{pk}", "{user.pk", "{}/x"],
)
def test_patterns_that_mean_nothing(text: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        pattern(text)


@pytest.mark.parametrize("name", ["*", "**", "a/b", ".*", "[^/]+", "", "{user.pk}"])
def test_what_a_user_is_called_is_no_pattern(name: str) -> None:
    somebody = user(username=name)
    for path in ("users/b", "users/a/b", "users/x/y/z", "users/7"):
        assert not pattern("users/{user.username}/**").matches(path + "/x", somebody) or path == f"users/{name}"


@given(st.text(min_size=1), st.text(min_size=1))
def test_only_who_is_called_exactly_so_owns_a_segment(name: str, segment: str) -> None:
    matches = pattern("users/{user.username}/**").matches(f"users/{segment}/x", user(username=name))
    assert matches == (name == segment and "/" not in name)


def test_those_without_a_value_own_nothing() -> None:
    for path in ("users/None/x", "users//x", "users/anonymous/x"):
        assert not pattern("users/{user.pk}/**").matches(path, AnonymousUser())
        assert not pattern("users/{user.nothing}/**").matches(path, user())
        assert not pattern("users/{user.get_username}/**").matches(path, user(get_username=lambda: "None"))


def test_a_field_may_lead_on() -> None:
    assert pattern("{user.team.slug}/*").matches("red/1", user(team=SimpleNamespace(slug="red")))


@pytest.mark.parametrize(
    "owner", [{"a/**": ["write"]}, {"a/**": "read"}, {"**/a": ["read"]}, "a**", ["{user.pk"]], ids=str
)
def test_options_that_mean_nothing(owner: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Owner(owner=owner)


async def test_users_have_what_is_theirs_and_nothing_else(client: AsgiClient, make_user: Callable[..., User]) -> None:
    def enter(name: str) -> tuple[User, Visitor]:
        user = make_user(name)
        return user, Visitor(client, log_in_at_django(user))

    ann, hers = await sync_to_async(enter)("ann")
    bob, his = await sync_to_async(enter)("bob")
    own, news = f"users/{ann.pk}/notes", "news/today"
    await sync_to_async(Stream.objects.create)(path=news, content_type="text/plain", data="x")
    owner = {"users/{user.pk}/**": ["create", "read", "append", "close", "delete"], "news/**": ["read"]}
    with override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "OWNER": owner}):
        assert (await hers.request("PUT", own, TEXT)).status == 201
        for visitor, allowed in ((his, False), (client, False), (hers, True)):
            statuses = [
                (await visitor.request("POST", own, TEXT, b"x")).status,
                (await visitor.request("GET", own)).status,
                (await visitor.request("HEAD", own)).status,
                (await visitor.request("POST", own, {"stream-closed": "true"})).status,
                (await visitor.request("DELETE", own)).status,
            ]
            assert statuses == ([204, 200, 200, 204, 204] if allowed else [403] * 5)
        assert (await hers.request("PUT", f"users/{bob.pk}/notes", TEXT)).status == 403
        assert [(await each.request("GET", news)).status for each in (hers, his, client)] == [200, 200, 403]
        assert (await hers.request("POST", news, TEXT, b"x")).status == 403
        fork = {"stream-forked-from": f"/v1/stream/{news}"}
        assert (await hers.request("PUT", f"users/{ann.pk}/copy", fork)).status == 201
        assert (
            await his.request("PUT", f"users/{bob.pk}/copy", {"stream-forked-from": f"/v1/stream/{own}"})
        ).status == 403


async def test_a_single_pattern_is_for_everything(client: AsgiClient, make_user: Callable[..., User]) -> None:
    def enter() -> tuple[User, Visitor]:
        user = make_user("ann")
        return user, Visitor(client, log_in_at_django(user))

    _, visitor = await sync_to_async(enter)()
    with override_streams(PERMISSION_CLASSES={"CLASS": CLASS, "OWNER": "u/{user.username}"}):
        assert (await visitor.request("PUT", "u/ann", TEXT)).status == 201
        assert (await visitor.request("DELETE", "u/ann")).status == 204
        assert (await visitor.request("PUT", "u/bob", TEXT)).status == 403
