"""Ids of chats as clients may send them: none of them is an error of the server, at any view of any dialect."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import re_path

from django_durable_streams.contrib.ai.permissions import AnonymousChats, ChatPermission, OwnChats
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import InvalidPath
from tests.ai.test_views import client_of, post
from tests.ai.urls import urlpatterns as scripted
from tests.overriding import override_streams

pytestmark = pytest.mark.usefixtures("engines", "these_urls")

IDS = [
    "x" * 129, "x" * 600, "x" * 5000, "é" * 600, "a/b", "a//b", "/", "..", ".", "...", "../../v1/stream/a", ".hidden",
    "-", "a b", " ", "a\x00b", "\x00", "a\nb", "a\r\nX: y", "\x7f", "\x1b[2J", "a\\b", "a%2Fb", "%00", "%", "a?b",
    "a#b", "\ufffd", "\ufeff", "\u202ea", "\u2028", "💻", "__ds/streams", "*", "**", "{user.pk}", "a;b", "a'b\"c",
]  # fmt: skip
RAW_IDS = ["%ED%A0%80", "%ED%BF%BFx", "%FF", "%C3", "%C0%AF", "%C0%AE%C0%AE", "a%0", "%2e%2e", "%2E", "a%2fb", "%252F"]
"""Percent-encoded bytes, among them surrogates and other text that is no UTF-8."""

QUOTED = [*(quote(text, safe="") for text in IDS), *RAW_IDS]

DIALECTS = ("chat", "pointer", "tanstack", "agui")
VIEWS = (
    ("GET", "stream"), ("GET", "messages"), ("POST", "stop"), ("POST", "branch"),
    ("GET", "answers/00000000-0000-0000-0000-000000000000"),
)  # fmt: skip


def page(request: HttpRequest, chat_id: str) -> HttpResponse:
    """The page of `docs/ai.md`, behind a converter that takes everything."""
    stream, _ = Stream.objects.ensure(OwnChats().path(request.user, chat_id), content_type="application/json")
    return HttpResponse(stream.path)


urlpatterns = [
    *scripted,
    re_path(r"^any/(?P<chat_id>[\s\S]*)\Z", page),
]


@pytest.fixture(params=["OwnChats", "AnonymousChats"])
def these_urls(request: pytest.FixtureRequest) -> Iterator[None]:
    setting = f"django_durable_streams.contrib.ai.permissions.{request.param}"
    with override_settings(ROOT_URLCONF=__name__), override_streams(AI_PERMISSION_CLASS=setting):
        yield


def problem_of(reply: Any) -> object:
    """What is wrong with the response to an invalid id. None: nothing."""
    if reply.status_code not in (400, 404):
        return reply.status_code
    if reply.status_code == 400 and not json.loads(reply.content)["error"]:
        return reply.content
    return None


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_id_in_a_url_is_an_error_of_the_server(dialect: str) -> None:
    ann = await client_of("ann")
    problems = {}
    for text in QUOTED:
        for method, view in VIEWS:
            url = f"/api/{dialect}/{text}/{view}"
            reply = await (ann.get(url) if method == "GET" else post(ann, url, {}))
            problems[method, view, text] = problem_of(reply)
    assert {key: problem for key, problem in problems.items() if problem is not None} == {}
    assert not await Stream.objects.aexists()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nor_is_it_under_wsgi(dialect: str) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create(username="ann"))
    problems = {text: problem_of(client.get(f"/api/{dialect}/{text}/messages")) for text in QUOTED}
    assert {text: problem for text, problem in problems.items() if problem is not None} == {}


@pytest.mark.parametrize("text", QUOTED)
async def test_no_id_in_a_query_is_an_error_of_the_server(text: str) -> None:
    ann = await client_of("ann")
    url = f"/api/tanstack?id={text}"
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    assert problem_of(await post(ann, url, {"messages": [message]})) is None
    answers = [await ann.get(f"/api/chat/c1/stream?answer={text}"), await ann.get(f"/api/pointer/c1/answers/{text}")]
    assert [problem_of(answer) for answer in answers] == [None, None]
    assert not await Stream.objects.aexists()


@pytest.mark.parametrize("text", [*IDS, "\ud800", "a\udfff"])
async def test_no_id_in_a_body_is_an_error_of_the_server(text: str) -> None:
    ann = await client_of("ann")
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    bodies = {
        "/api/chat": {"id": text, "messages": [message]},
        "/api/pointer": {"id": text, "messages": [message]},
        "/api/agui": {"threadId": text, "runId": "r", "messages": [{"id": "u1", "role": "user", "content": "Hi"}]},
        "/api/chat/c1/branch": {"id": text},
    }
    replies = {url: problem_of(await post(ann, url, body)) for url, body in bodies.items()}
    assert {url: problem for url, problem in replies.items() if problem is not None} == {}
    assert not await Stream.objects.aexists()


@pytest.mark.parametrize("permission", [ChatPermission, OwnChats, AnonymousChats])
def test_a_path_that_no_stream_can_have_is_an_error_of_the_request(permission: type[ChatPermission]) -> None:
    user = User(pk=7)
    assert permission().path(user, "tea 1").endswith("/tea 1")
    for text in ("x" * 600, "a\x00b", "a//b", "..", "", "a\\b", "\ud800", "\ufffd"):
        with pytest.raises(InvalidPath, match="No chat can have this id") as error:
            permission().path(user, text)
        assert isinstance(error.value, BadRequest)


@pytest.mark.django_db
def test_a_view_of_the_project_answers_400_to_such_an_id() -> None:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create(username="ann"))
    problems = {text: client.get(f"/any/{text}").status_code for text in (*QUOTED, "")}
    assert set(problems.values()) <= {200, 400}
    refused = {text for text, status in problems.items() if status == 400}
    assert {quote("x" * 600), "%00", "", "..", quote("a\nb"), "%5C"} - refused <= {"%5C", ".."}
