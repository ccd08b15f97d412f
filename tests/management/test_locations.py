"""URLs that people paste into `manage.py streams`: they mean the stream, or say what they lead to."""

from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path
from django.views import View

from django_durable_streams.access.access_request import AccessRequest
from django_durable_streams.contrib.ai.views import AGUIChat, DurableTransportChat, TanStackChat, VercelChat
from django_durable_streams.pages import EventView
from django_durable_streams.permissions import Permission, sign
from tests.access.test_bearer_tokens import BEARER, token
from tests.management.commands import streams
from tests.management.test_check_access import NEVER, OWNER, PACKAGE, examined
from tests.overriding import override_streams

HOST = "https://tea.example.org"
SIGNED = f"{PACKAGE}.SignedURLs"

pytestmark = pytest.mark.django_db(transaction=True)  # permissions of projects are asked in threads


class UserEvents(EventView):
    def get_path(self) -> str:
        return f"users/{self.request.user.pk}/news"


class Page(View):
    pass


def board(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class PointerChat(DurableTransportChat):
    pass


urlpatterns = [
    path("streams/", include("django_durable_streams.urls")),
    path("second/root/", include(("django_durable_streams.urls", "second"), namespace="second")),
    path("events/<path:path>", EventView.as_view()),
    path("open/<path:path>/", EventView.as_view(check_permissions=False)),
    path("mine", UserEvents.as_view()),
    path("board/", board),
    path("page", Page.as_view()),
    *VercelChat.urls("api/vercel"),
    *PointerChat.urls("api/pointer"),
    *TanStackChat.urls("api/tanstack"),
    *AGUIChat.urls("api/agui"),
]


@pytest.fixture(autouse=True)
def ada() -> User:
    return User.objects.create_user("ada")


@pytest.fixture(autouse=True)
def _urls() -> Any:
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["tea.example.org"]):
        yield


# --- what of the query decides


@pytest.mark.parametrize("root", ["/streams/", f"{HOST}/streams/", f"{HOST}/second/root/", "/second/root/"])
@pytest.mark.parametrize("rest", ["", "&offset=-1&live=sse", "&token2=x#part"])
def test_the_token_of_a_url_counts(root: str, rest: str) -> None:
    url = f"{root}a%20b?{urlencode({'token': sign('a b', 'read', expires=60)})}"
    with override_streams(PERMISSION_CLASSES=SIGNED):
        assert examined("read", url + rest)["allowed"]
        assert not examined("read", url.replace("a%20b", "other") + rest)["allowed"]
        assert not examined("append", url + rest)["allowed"]


def test_a_token_that_is_given_besides_the_url_counts_instead() -> None:
    good, bad = sign("a", "read", expires=60), sign("a", "read", expires=-60)
    with override_streams(PERMISSION_CLASSES=SIGNED):
        assert examined("read", f"/streams/a?token={bad}", "--token", good)["allowed"]
        assert not examined("read", f"/streams/a?token={good}", "--token", bad)["allowed"]


def test_a_bearer_token_in_the_query_counts() -> None:
    good = token({"read": ["a"]}, exp=NEVER)
    with override_streams(PERMISSION_CLASSES=BEARER):
        assert examined("read", f"{HOST}/streams/a?access_token={good}")["allowed"]
        assert not examined("read", f"{HOST}/streams/b?access_token={good}")["allowed"]


class ByQueryAndHost(Permission):
    """Allows readers by a parameter of the project's own, at one host."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return request.http_request.get_host() == "tea.example.org:8443" and request.query.getlist("room") == ["1", "é"]


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        (f"{HOST}:8443/streams/a?room=1&room=%C3%A9", True),
        ("https://ada:secret@tea.example.org:8443/streams/a?room=1&room=%C3%A9", True),
        (f"{HOST}/streams/a?room=1&room=%C3%A9", False),
        (f"{HOST}:8443/streams/a?room=1", False),
    ],
)
def test_a_class_of_the_project_sees_the_query_and_the_host(url: str, is_allowed: bool) -> None:
    with override_streams(PERMISSION_CLASSES=f"{__name__}.ByQueryAndHost"):
        assert examined("read", url)["allowed"] is is_allowed
        assert not examined("read", url, "--host", "tea.example.org")["allowed"]
        with pytest.raises(CommandError, match="ALLOWED_HOSTS"):
            streams("check-access", "read", url, "--host", "other.example.org")


class AtServer(Permission):
    """Notes at which server a request arrives, and allows it."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        self.seen.append((request.http_request.META["SERVER_NAME"], request.http_request.META["SERVER_PORT"]))
        return True


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("tea.example.org", ("tea.example.org", "443")),
        ("tea.example.org:8443", ("tea.example.org", "8443")),
        ("[::1]", ("[::1]", "443")),
        ("[::1]:8000", ("[::1]", "8000")),
    ],
)
def test_a_class_of_the_project_sees_the_server_of_the_url(host: str, server: tuple[str, str]) -> None:
    AtServer.seen.clear()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.AtServer"), override_settings(ALLOWED_HOSTS=["*"]):
        assert examined("read", f"https://{host}/streams/a")["allowed"]
    assert AtServer.seen == [server]


# --- URLs that lead elsewhere

ELSEWHERE = [
    ("/events/board", ["the event view", "EventView", "Give the path board instead"]),
    ("/events/users/1/a%20b?x=1", ["Give the path users/1/a b instead"]),
    ("/open/board/", ["EventView", "board", "asks no permission class"]),
    ("/open/board", ["EventView", "asks no permission class"]),  # with the slash that Django appends
    ("/mine", ["UserEvents", "UserEvents.get_path returns"]),
    ("/board", ["test_locations.board of the project", "If it sends a stream"]),
    ("/page", ["test_locations.Page of the project"]),
    ("/api/vercel", ["VercelChat", "AI_PERMISSION_CLASS, OwnChats"]),
    ("/api/agui", ["AGUIChat", "AI_PERMISSION_CLASS, OwnChats"]),
    *(
        (f"/api/{dialect}/tea1/{view}", [name, "AI_PERMISSION_CLASS, OwnChats", "chats/{pk}/tea1"])
        for dialect, name in (
            ("vercel", "VercelChat"), ("pointer", "PointerChat"), ("tanstack", "TanStackChat"), ("agui", "AGUIChat"),
        )
        for view in ("messages", "stream", "stop", "branch")
    ),
    ("/api/pointer/tea1/answers/00000000-0000-0000-0000-000000000000", ["PointerChat", "chats/{pk}/tea1"]),
]  # fmt: skip


@pytest.mark.parametrize("host", ["", HOST, "http://localhost:8000"])
@pytest.mark.parametrize(("url", "named"), ELSEWHERE)
def test_a_url_of_another_view_is_an_error_that_names_it(host: str, url: str, named: list[str], ada: User) -> None:
    with override_streams(PERMISSION_CLASSES=OWNER), pytest.raises(CommandError) as error:
        streams("check-access", "read", f"{host}{url}", "--user", "ada")
    assert [text for text in named if text.format(pk=ada.pk) not in str(error.value)] == []
    assert "may not" not in str(error.value)


@pytest.mark.parametrize("subcommand", [("read",), ("create",), ("delete", "--no-input"), ("append", "x")])
def test_other_subcommands_refuse_such_a_url_too(subcommand: tuple[str, ...]) -> None:
    name, *options = subcommand
    with pytest.raises(CommandError, match=r"leads to the event view .* Give the path board instead"):
        streams(name, "/events/board", *options)
    with pytest.raises(CommandError, match=r"The stream of the chat is at the path that OwnChats\.path returns"):
        streams(name, f"{HOST}/api/vercel/tea1/messages", *options)


@pytest.mark.parametrize("text", ["http://[", "http://[::1/streams/a", "x://a]b/"])
def test_what_only_looks_like_a_url_is_refused(text: str) -> None:
    for arguments in (("check-access", "read", text), ("show", text)):
        with pytest.raises(CommandError, match="is no URL"):
            streams(*arguments)


def test_the_path_of_a_stream_may_be_that_of_a_view_without_its_first_slash() -> None:
    with pytest.raises(CommandError, match="leave out the first slash"):
        streams("show", "/events/board")
    with pytest.raises(CommandError, match="no stream at events/board"):
        streams("show", "events/board")


def test_a_url_without_a_view_is_the_path_of_a_stream_or_an_error() -> None:
    with override_streams(PERMISSION_CLASSES=OWNER):
        assert examined("read", "/users/ada/x", "--user", "ada")["allowed"]
        assert examined("read", "events/board", "--user", "ada")["path"] == "events/board"
        with pytest.raises(CommandError, match="does not begin with /streams/"):
            streams("check-access", "read", f"{HOST}/users/ada/x", "--user", "ada")


def test_the_prefix_counts_before_the_urls_of_the_project() -> None:
    with override_streams(PERMISSION_CLASSES=OWNER, URL_PREFIX=f"{HOST}/events/"):
        assert examined("read", "/events/users/ada/x", "--user", "ada")["allowed"]
        assert examined("read", f"{HOST}/streams/users/ada/x", "--user", "ada")["path"] == "users/ada/x"


def test_control_apis_are_no_prefixes_and_no_subscriptions() -> None:
    for action, rest in (("list", "__ds/streams?prefix=a"), ("subscribe", "__ds/subscriptions/s"), ("read", "__ds/x")):
        with pytest.raises(CommandError, match="control API"):
            streams("check-access", action, f"{HOST}/streams/{rest}")


def test_urls_that_cannot_be_imported_do_not_matter() -> None:
    with override_settings(ROOT_URLCONF="no.such.urls"), override_streams(PERMISSION_CLASSES=OWNER, URL_PREFIX="/s/"):
        assert examined("read", "/users/ada/x", "--user", "ada")["allowed"]
