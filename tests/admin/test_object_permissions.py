"""Permissions on each stream: every page, action and list, for users who have theirs on some paths only."""

from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_durable_streams.models import Stream
from django_durable_streams.store.operations import MoveEntries
from django_durable_streams.store.write import group_commit
from tests.admin.by_object import Streams as ByObjectStreams
from tests.admin.by_object import site
from tests.admin.pages import url

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.admin.by_object")]

SECRET = b"theirs"
"""What all paths and messages have that nobody here may see."""

NEEDED = {
    "change": {"view"},
    "history": {"view"},
    "message": {"view"},
    "download": {"view"},
    "producers": {"view"},
    "tail": {"view"},
    "append": {"change"},
    "close": {"change"},
    "keep": {"change"},
    "sign": {"change"},
    "fork": {"view", "add"},
    "delete": {"delete"},
}
"""What a page of one stream asks for, on that stream: all of these. To change implies to view."""

OTHERS = {"changelist", "add", "process", "delete_matching"}
"""Pages of no stream."""

USERS = ("", "view", "change", "delete", "add", "view add", "view change", "view delete", "view add change delete")


@pytest.fixture(autouse=True)
def backend(settings: Any) -> None:
    settings.DURABLE_STREAMS = {
        **settings.DURABLE_STREAMS,
        "PERMISSION_CLASSES": ["django_durable_streams.permissions.SignedURLs"],
    }
    settings.AUTHENTICATION_BACKENDS = ["tests.admin.by_object.ByPath", "django.contrib.auth.backends.ModelBackend"]


class Streams(NamedTuple):
    """A source and its fork below each of two roots, each a fork of one of the other root as well."""

    mine: Stream
    theirs: Stream
    my_fork: Stream
    their_fork: Stream


@pytest.fixture
def streams() -> Streams:
    mine = Stream.objects.create(path="mine/plans", content_type="text/plain", data="words")
    theirs = Stream.objects.create(path="theirs/plans", content_type="text/plain", data="words")
    my_fork = theirs.fork("mine/fork")
    their_fork = mine.fork("theirs/fork")
    mine.fork("mine/other-fork")
    for stream in (mine, theirs):
        stream.append("more")
    return Streams(mine, theirs, my_fork, their_fork)


def client_of(permissions: str) -> Client:
    user = User.objects.create_user(f"user {permissions}", first_name=permissions, is_staff=True)
    client = Client()
    client.force_login(user, backend="tests.admin.by_object.ByPath")
    return client


def granted(permissions: str) -> set[str]:
    names = {*permissions.split()}
    return names | {"view"} if "change" in names else names


def state(stream: Stream) -> tuple[Any, ...] | None:
    return Stream.objects.filter(pk=stream.pk).values_list("path", "tail_position", "closed", "deleted_at").first()


def test_the_table_has_every_page() -> None:
    (options,) = (options for options in site._registry.values() if options.model is Stream)
    names = {pattern.name.removeprefix("durable_streams_stream_") for pattern in options.get_urls() if pattern.name}
    assert names == NEEDED.keys() | OTHERS


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("name", NEEDED)
def test_every_page_of_a_stream_asks_for_that_stream(name: str, method: str, streams: Streams) -> None:
    fields = {"from": "0", "path": "mine/new", "post": "yes", "text": "word"}
    before = [state(streams.theirs), state(streams.their_fork)]
    for permissions in USERS:
        client = client_of(permissions)
        for theirs in (streams.theirs, streams.their_fork):
            response = getattr(client, method)(url(name, theirs), fields)
            assert response.status_code == 403
            assert b"plans" not in response.content
            assert SECRET not in response.content
        for mine in (streams.mine, streams.my_fork):
            response = getattr(client, method)(url(name, mine), fields)
            assert (response.status_code != 403) == (NEEDED[name] <= granted(permissions)), permissions
            assert response.status_code < 500
            # A fork of theirs may be said to be one, but not of what.
            assert SECRET not in response.content
    assert [state(streams.theirs), state(streams.their_fork)] == before


@pytest.mark.parametrize("permissions", USERS)
def test_lists_name_what_may_be_seen_only(permissions: str, streams: Streams) -> None:
    client = client_of(permissions)
    autocomplete = {"app_label": "durable_streams", "model_name": "stream", "field_name": "source"}
    sees = "view" in granted(permissions)
    for target, fields in [
        (url("changelist"), {}),
        (url("changelist"), {"q": "mine/"}),
        (url("changelist"), {"all": ""}),
        (url("changelist"), {"forks": "is"}),
        (url("changelist"), {"source__id__exact": streams.mine.pk}),
        (reverse("admin:autocomplete"), {**autocomplete, "term": ""}),
        (reverse("admin:autocomplete"), {**autocomplete, "term": "mine/"}),
    ]:
        response = client.get(target, fields)
        assert (response.status_code == 200) == sees
        assert SECRET not in response.content
        if sees:
            assert b"mine/" in response.content
    for term in ("theirs/", "theirs"):
        for target, fields in [
            (url("changelist"), {"q": term}),
            (reverse("admin:autocomplete"), {**autocomplete, "term": term}),
        ]:
            assert b"theirs/" not in client.get(target, fields).content.replace(f'value="{term}"'.encode(), b"")


@pytest.mark.parametrize("permissions", [user for user in USERS if "view" in granted(user)])
def test_a_page_names_the_forks_and_the_source_that_may_be_seen(permissions: str, streams: Streams) -> None:
    client = client_of(permissions)
    page = client.get(url("change", streams.mine)).content.decode()
    assert "mine/other-fork" in page
    assert "another stream" in client.get(url("change", streams.my_fork)).content.decode()
    assert "another stream" in client.get(url("changelist")).content.decode()


def test_forks_that_may_not_be_seen_do_not_hide_others(streams: Streams) -> None:
    for number in range(30):
        streams.mine.fork(f"theirs/fork/{number}")
    page = client_of("view").get(url("change", streams.mine)).content.decode()
    assert "mine/other-fork" in page
    assert "All forks" not in page


ACTIONS = {"close_selected": "change", "delete_selected": "delete"}


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("permissions", USERS)
def test_actions_ask_for_each_stream(permissions: str, action: str, confirmed: bool, streams: Streams) -> None:
    client = client_of(permissions)
    before = {stream: state(stream) for stream in streams}
    fields: dict[str, Any] = {"action": action, "_selected_action": [stream.pk for stream in streams]}
    response = client.post(url("changelist"), {**fields, **({"post": "yes"} if confirmed else {})}, follow=True)
    assert response.status_code in (200, 403)
    assert SECRET not in response.content
    for stream in (streams.theirs, streams.their_fork):
        assert state(stream) == before[stream]
    allowed = ACTIONS[action] in granted(permissions) and "view" in granted(permissions)
    if action == "close_selected":
        for stream in (streams.mine, streams.my_fork):
            assert (state(stream) != before[stream]) == (allowed and confirmed)
        if allowed:
            assert "You may not close 2 of these streams." in response.content.decode()
    else:  # all or none
        assert all(state(stream) == before[stream] for stream in streams)


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_on_what_is_ones_own_are_done(action: str, streams: Streams) -> None:
    client = client_of("view add change delete")
    fields = {"action": action, "_selected_action": [streams.mine.pk, streams.my_fork.pk], "post": "yes"}
    before = {stream: state(stream) for stream in streams}
    response = client.post(url("changelist"), fields, follow=True)
    assert response.status_code == 200
    changed = {stream for stream in streams if state(stream) != before[stream]}
    assert changed == {streams.mine, streams.my_fork}
    assert SECRET not in response.content


def test_the_history_does_not_name_what_was_forked(streams: Streams) -> None:
    root = User.objects.create_superuser("root")
    everything = Client()
    everything.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    for stream, fork in [(streams.theirs, "mine/second"), (streams.mine, "theirs/second")]:
        assert everything.post(url("fork", stream), {"path": fork}).status_code == 302
    client = client_of("view")
    for path in ("mine/plans", "mine/second"):
        history = client.get(url("history", Stream.objects.get(path=path))).content
        assert b"Forked" in history
        assert SECRET not in history


def test_a_delete_without_the_right_to_see_does_not_name(streams: Streams) -> None:
    """Who may delete streams of which he may see some is shown the names of these."""
    options = site._registry[Stream]
    request = Client().get("/").wsgi_request
    request.user = User.objects.create_user("deleter", first_name="delete", is_staff=True)
    request.user.backend = "tests.admin.by_object.ByPath"
    lines, counts, lacking, _ = options.get_deleted_objects([streams.mine, streams.theirs], request)
    assert "plans" not in "".join(lines)
    assert lacking
    assert counts == {"streams": 2}


def test_a_registry_that_a_user_may_view_tells_no_paths_of_others(
    streams: Streams, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "REGISTRY_PATH": "mine/registry"}
    Stream.objects.create(path="theirs/new", content_type="text/plain")
    group_commit.apply([MoveEntries("mine/registry", 10)], "default")
    registry = Stream.objects.get(path="mine/registry")
    assert SECRET.decode() in str(list(registry.read()))
    client = client_of("view add change")
    for name in sorted(NEEDED.keys() - {"history", "delete"}):
        for method in (client.get, client.post):
            response = method(url(name, registry), {"text": "x"})
            assert (response.status_code, SECRET in response.content) == (403, False), name
    monkeypatch.setattr(ByObjectStreams, "may_name_all", lambda self, request: True)
    assert SECRET in client.get(url("change", registry)).content
