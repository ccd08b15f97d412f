"""The views of a chat in one process: who may use it, what bad requests get, and that a request ends nothing."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from threading import Event, Semaphore
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import AsyncClient, Client, override_settings

from django_durable_streams.contrib.ai import feeds, lookups
from django_durable_streams.contrib.ai.answers import AnswerRunning, Chat, Run
from django_durable_streams.contrib.ai.models import committed_events
from django_durable_streams.contrib.ai.permissions import ChatPermission
from django_durable_streams.contrib.ai.views import ChatRequest, VercelChat, absent, access, vercel
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.shutdown import stop_readers_of
from tests.ai.urls import urlpatterns as scripted

pytestmark = [pytest.mark.usefixtures("engines", "these_urls")]


class AsyncAnswer(VercelChat):
    """Answers by an asynchronous method."""

    if_active = "join"

    async def answer(self, request: ChatRequest) -> Any:
        return [f"You said {request.text}."]


class BrokenAnswer(VercelChat):
    def answer(self, request: ChatRequest) -> Any:
        raise LookupError("no model")


class RacedAnswer(VercelChat):
    """While this answer is chosen, another user creates the chat."""

    def answer(self, request: ChatRequest) -> Any:
        Chat.objects.create(stream=Stream.objects.create(path=request.path, content_type="application/json"), owner="0")
        return ["never"]


urlpatterns = [
    *scripted,
    *AsyncAnswer.urls("api/async"),
    *BrokenAnswer.urls("api/broken"),
    *RacedAnswer.urls("api/raced"),
]


@pytest.fixture
def these_urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__):
        yield


def body(chat: str = "c1", text: str = "Hi", **fields: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **fields}


def nested(depth: int) -> dict[str, Any]:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return body(messages=[{"id": "u1", "role": "user", "parts": [{"type": "data-x", "data": value}]}])


async def client_of(name: str | None) -> AsyncClient:
    client = AsyncClient()
    if name is not None:
        user, _ = await User.objects.aget_or_create(username=name)
        await client.aforce_login(user)
    return client


async def post(client: AsyncClient, url: str, value: Any) -> Any:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return await client.post(url, data, content_type="application/json")


async def chunks(response: Any) -> list[Any]:
    assert response.status_code == 200, response.content
    data = b"".join([piece async for piece in response])
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line.startswith(b"data: ")]
    return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]


async def test_a_user_has_a_chat_of_his_own() -> None:
    ann, bob = await client_of("ann"), await client_of("bob")
    answer = await chunks(await post(ann, "/api/chat", body(script={"count": 1})))
    assert answer[-2:] == [{"type": "finish", "finishReason": "stop"}, "[DONE]"]
    # The same id is another chat of another user: nothing tells that there is the first one.
    assert (await bob.get("/api/chat/c1/messages")).json()["messages"] == []
    assert (await bob.get("/api/chat/c1/stream")).status_code == 204
    assert (await bob.post("/api/chat/c1/stop")).status_code == 204
    assert len((await ann.get("/api/chat/c1/messages")).json()["messages"]) == 2
    owner = await User.objects.aget(username="ann")
    chat = await Chat.objects.select_related("stream").aget()
    assert (chat.path, chat.owner) == (f"chats/{owner.pk}/c1", str(owner.pk))


async def ask_everything(client: AsyncClient) -> list[Any]:
    """Send a request of each kind for the chat `c1`."""
    return [
        await post(client, "/api/chat", body()),
        await client.get("/api/chat/c1/stream"),
        await client.get("/api/chat/c1/messages"),
        await client.post("/api/chat/c1/stop"),
        await post(client, "/api/chat/c1/branch", {}),
    ]


@pytest.mark.parametrize("exists", [False, True])
async def test_a_chat_of_others_is_refused_whether_or_not_it_exists(
    exists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": "tests.ai.test_views.SharedPaths"}):
        if exists:
            user = await User.objects.acreate(username="ann")
            stream = await Stream.objects.acreate(path="shared/c1", content_type="application/json")
            await Chat.objects.acreate(stream=stream, owner=str(user.pk))
        for name in ("bob", None):
            client = await client_of(name)
            caplog.clear()
            replies = [
                *await ask_everything(client),
                await client.get("/api/pointer/c1/answers/00000000-0000-0000-0000-000000000000"),
                await client.get("/api/tanstack/c1/stream"),
            ]
            assert {(reply.status_code, reply.content) for reply in replies} == {
                (403, b'{"error": "Permission denied."}')
            }
            who = "anonymous" if name is None else (await User.objects.aget(username=name)).pk
            session = "" if name else " The request has no session cookie (sessionid)."
            assert refusals(caplog) == [
                f"{action} of shared/c1 is refused to user {who} at 127.0.0.1 "
                f"by {__name__}.shared_paths.<locals>.Shared (AI_PERMISSION_CLASS).{session}"
                for action in ("write", "read", "read", "stop", "read", "read", "read")
            ]
    assert not await Run.objects.aexists()


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log about refused requests."""
    return [record.getMessage() for record in caplog.records if record.name == "django_durable_streams.access"]


async def test_a_chat_that_others_create_at_the_same_moment_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": "tests.ai.test_views.RacedPaths"}):
        reply = await post(await client_of("ann"), "/api/raced", body())
    assert (reply.status_code, reply.json()) == (403, {"error": "Permission denied."})
    (line,) = refusals(caplog)
    assert line.startswith("write of raced/c1 is refused to user ")
    assert not await Run.objects.aexists()
    stream = await Stream.objects.aget(path="raced/c1")
    assert await sync_to_async(lambda: list(stream.read()))() == []


class RacedPaths(ChatPermission):
    """Everybody may create a chat, and only its owner may use it."""

    def allows(self, action: str, user: Any, path: str, chat: Chat | None) -> bool:
        return chat is None or chat.owner == str(user.pk)

    def path(self, user: Any, chat_id: str) -> str:
        return f"raced/{chat_id}"


async def test_a_process_that_writes_enough_answers_is_a_503() -> None:
    client = await client_of("ann")
    with override_settings(DURABLE_STREAMS={"AI_MAX_RUNS": 1}):
        running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
        refused = await post(client, "/api/chat", body("c2"))
        await client.post("/api/chat/c1/stop")
        await chunks(running)
    assert (refused.status_code, refused["Retry-After"]) == (503, "5")


def shared_paths() -> Any:
    from django_durable_streams.contrib.ai.permissions import OwnChats

    class Shared(OwnChats):
        def path(self, user: Any, chat_id: str) -> str:
            return f"shared/{chat_id}"

    return Shared


SharedPaths = shared_paths()


def wrong_permissions() -> Any:
    from django_durable_streams.contrib.ai.permissions import OwnChats

    class Asynchronous(OwnChats):
        async def allows(self, *args: Any) -> bool:  # type: ignore[override]
            return False

    class Disguised(OwnChats):
        def allows(self, *args: Any) -> Any:
            return Asynchronous().allows(*args)

    class WithoutCall(OwnChats):
        def allows(self, action: Any, user: Any, path: str, chat: Any) -> Any:
            return user.get_username

    return Asynchronous, Disguised, WithoutCall


AsynchronousAllows, DisguisedAllows, AllowsWithoutCall = wrong_permissions()


@pytest.mark.parametrize("name", ["AsynchronousAllows", "DisguisedAllows", "AllowsWithoutCall"])
async def test_a_permission_whose_answer_is_no_answer_allows_nothing(name: str) -> None:
    """A coroutine and a method are true, whatever they would return."""
    ann, bob = await client_of("ann"), await client_of("bob")
    owner = await User.objects.aget(username="ann")
    await chunks(await post(ann, "/api/chat", body(script={"count": 1})))
    bob.raise_request_exception = ann.raise_request_exception = False
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": f"tests.ai.test_views.{name}"}):
        for client in (ann, bob):
            replies = await ask_everything(client)
            assert {reply.status_code for reply in replies} == {500}
    assert await Chat.objects.acount() == 1
    assert (await Chat.objects.aget()).owner == str(owner.pk)


class HangingAllows(ChatPermission):
    """Its answer takes as long as something else does."""

    released = Event()
    begun = Semaphore(0)

    def allows(self, action: str, user: Any, path: str, chat: Chat | None) -> bool:
        self.begun.release()
        return self.released.wait(20)


async def test_a_request_waits_for_its_permission_for_so_long_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "ANSWER_SECONDS", 0.2)
    client = await client_of("ann")
    HangingAllows.released.clear()
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": f"{__name__}.HangingAllows"}):
        try:
            async with asyncio.timeout(10):
                replies = await asyncio.gather(
                    *[client.get("/api/chat/c1/messages") for _ in range(2 * access.THREADS)]
                )
            assert {(reply.status_code, "Retry-After" in reply) for reply in replies} == {(503, True)}
        finally:
            HangingAllows.released.set()
        monkeypatch.undo()
        assert (await client.get("/api/chat/c1/messages")).status_code == 200
    calls = 0
    while HangingAllows.begun.acquire(blocking=False):
        calls += 1
    assert calls <= access.THREADS + 1  # those whose requests have their answer are not asked


async def test_anonymous_users_have_no_chats() -> None:
    client = await client_of(None)
    assert (await post(client, "/api/chat", body())).status_code == 403
    assert (await client.get("/api/chat/c1/stream")).status_code == 403


@pytest.mark.parametrize(
    ("url", "value", "problem"),
    [
        ("/api/chat", b"", "not JSON"),
        ("/api/chat", b"\xff", "not JSON"),
        ("/api/chat", b'{"id": "c", "data": ' + b"[" * 100_000, "nested"),
        ("/api/chat", [], "Expected `object`"),
        ("/api/chat", {"messages": body()["messages"]}, "`id`"),
        ("/api/chat", body("../other"), "$.id"),
        ("/api/chat", body(messages=[]), "$.messages"),
        ("/api/chat", body(messages=[{"id": "s", "role": "system", "parts": []}]), "role"),
        ("/api/chat", body(messages=[{"id": "u", "role": "user", "parts": [{"type": "text"}]}]), "text"),
        ("/api/chat", body(messages=[{"id": "u", "role": "user", "parts": [{}]}]), "type"),
        ("/api/chat", body(trigger="anything"), "trigger"),
        ("/api/chat", body("c1\n"), "$.id"),
        ("/api/chat", body(messages=[{"id": "a\0b", "role": "user", "parts": []}]), "id"),
        ("/api/chat", json.dumps(body())[:-1].encode() + b', "more": 1e999}', "out of range"),
        ("/api/chat", nested(101), "100 levels"),
        ("/api/tanstack?id=c1", {"messages": [{"id": "a", "role": "assistant", "parts": []}]}, "last message"),
        ("/api/tanstack", {"messages": body()["messages"]}, "id of a chat"),
        ("/api/agui", {"threadId": "t", "runId": "r", "messages": [{"id": "m", "role": "tool"}]}, "no message"),
        (
            "/api/agui",
            {"threadId": "t", "runId": "r", "messages": [{"id": "m", "role": "user", "content": 5}]},
            "content",
        ),
    ],
)
async def test_a_malformed_request_is_a_400_that_names_the_problem(url: str, value: Any, problem: str) -> None:
    reply = await post(await client_of("ann"), url, value)
    assert reply.status_code == 400
    assert problem in reply.json()["error"]
    assert not await Run.objects.aexists()


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("/api/chat", {"type": "data-x", "data": 1, "id": {"a": 1}}),
        ("/api/chat", {"type": "data-x", "data": 1, "id": 5}),
        ("/api/chat", {"type": "file", "url": "u", "filename": ["a"]}),
        ("/api/agui", {"type": "text", "text": 5}),
        ("/api/agui", {"type": "text"}),
        ("/api/agui", {"type": "binary", "url": 5}),
        ("/api/agui", {"type": "binary", "url": "u", "mimeType": {"a": 1}}),
        ("/api/agui", {"type": "binary", "url": "u", "filename": ["a"]}),
    ],
)
async def test_a_field_of_a_part_with_another_type_is_a_400(url: str, part: Any) -> None:
    message = {"id": "u1", "role": "user", "parts": [part], "content": [part]}
    reply = await post(await client_of("ann"), url, {"id": "c1", "threadId": "c1", "runId": "r", "messages": [message]})
    assert reply.status_code == 400
    assert "Expected `str`" in reply.json()["error"]
    assert not await Run.objects.aexists()


async def test_a_form_with_files_is_a_400() -> None:
    """The check of the CSRF token has read its body, so that nobody else can."""
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(await User.objects.acreate(username="ann"))
    token = "a" * 32
    client.cookies["csrftoken"] = token
    reply: Any = await client.post("/api/chat", {"csrfmiddlewaretoken": token, "id": "c1"})
    assert reply.status_code == 400
    assert "not JSON" in reply.json()["error"]


@pytest.mark.parametrize("error", [OperationalError("the connection is closed"), ServiceUnavailable()])
async def test_a_database_that_is_away_is_a_503(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(lookups, "find_all", fail)
    client = await client_of("ann")
    for reply in (await post(client, "/api/chat", body()), await client.get("/api/chat/c1/stream")):
        assert (reply.status_code, reply["Retry-After"]) == (503, "1")


@pytest.mark.parametrize("url", ["/api/chat/..%2Fa/stream", "/api/chat/.a/stream", f"/api/chat/{'a' * 200}/stream"])
async def test_an_invalid_id_is_refused(url: str) -> None:
    assert (await (await client_of("ann")).get(url)).status_code in (400, 404)


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000)
async def test_a_large_body_is_a_413() -> None:
    assert (await post(await client_of("ann"), "/api/chat", body(text="a" * 2000))).status_code == 413


async def test_other_methods_are_refused() -> None:
    reply = await (await client_of("ann")).get("/api/chat")
    assert (reply.status_code, reply["Allow"]) == (405, "POST")


async def test_csrf_is_checked() -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(await User.objects.acreate(username="ann"))
    assert (await post(client, "/api/chat", body())).status_code == 403
    assert not await Run.objects.aexists()


async def test_an_answer_outlives_its_request() -> None:
    client = await client_of("ann")
    response = await post(client, "/api/chat", body(script={"count": 30, "seconds": 0.01}))
    pieces = aiter(response)
    await anext(pieces)
    await pieces.aclose()
    run = await Run.objects.select_related("chat__stream").aget()
    await run.await_end()
    assert run.state == "done"


async def test_readers_of_an_answer_share_one_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[feeds.Feed] = []

    class Counted(feeds.Feed):
        def __init__(self, source: feeds.FeedSource) -> None:
            super().__init__(source)
            made.append(self)

    monkeypatch.setattr(feeds, "Feed", Counted)
    client = await client_of("ann")
    response = await post(client, "/api/chat", body(script={"count": 30, "seconds": 0.02}))
    others = [await client.get("/api/chat/c1/stream") for _ in range(3)]
    first, *rest = await asyncio.gather(*map(chunks, (response, *others)))
    assert rest == [first, first, first]
    assert len(made) == 1
    assert not made[0].reader_count


async def test_a_message_during_an_answer_joins_or_is_refused() -> None:
    client = await client_of("ann")
    running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
    second = [{"id": "u2", "role": "user", "parts": []}]
    refused = await post(client, "/api/chat", body(messages=second))
    assert refused.status_code == 409
    joined = await post(client, "/api/async", body(messages=second))
    await client.post("/api/chat/c1/stop")
    assert await chunks(joined) == await chunks(running)
    assert await Run.objects.acount() == 1


async def test_starts_that_wait_for_their_chat_delay_no_other_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    client, is_free = await client_of("ann"), Event()
    waiting = Semaphore(0)

    def wait(*args: Any, **options: Any) -> Any:
        waiting.release()
        is_free.wait(30)
        raise AnswerRunning("The row of the chat was locked until now.")

    async def start() -> Any:
        async with ThreadSensitiveContext():  # as Django's handler gives each request a thread, and its test client not
            return await post(client, "/api/async", body())

    monkeypatch.setattr("django_durable_streams.contrib.ai.views.base.start_checked", wait)
    starts = [asyncio.create_task(start()) for _ in range(6)]
    try:
        for _ in starts:
            assert await asyncio.to_thread(waiting.acquire, timeout=10)
        async with asyncio.timeout(20):
            assert (await client.get("/api/async/c2/messages")).status_code == 200
    finally:
        is_free.set()
        replies = await asyncio.gather(*starts)
    assert [reply.status_code for reply in replies] == [409] * 6


async def test_the_answer_may_come_from_an_asynchronous_method() -> None:
    answer = await chunks(await post(await client_of("ann"), "/api/async", body(text="yes")))
    assert [chunk["delta"] for chunk in answer if "delta" in chunk] == ["You said yes."]


async def test_an_answer_that_cannot_be_chosen_stores_nothing() -> None:
    with pytest.raises(LookupError):
        await post(await client_of("ann"), "/api/broken", body())
    assert not await Chat.objects.aexists()


async def with_tool_result(client: AsyncClient, *parts: dict[str, str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the id of the answer in a chat, and the chat as a page sends it with parts and the result of a tool."""
    (user, answer) = (await client.get("/api/chat/c1/messages")).json()["messages"]
    tool = {"type": "tool-ask", "toolCallId": "t9", "state": "output-available", "input": {}, "output": "yes"}
    messages = [
        {"id": user["id"], "role": "user", "parts": []},
        {"id": answer["id"], "role": "assistant", "parts": [*parts, tool]},
    ]
    return answer["id"], messages


async def test_results_of_tools_continue_the_message() -> None:
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    answer_id, messages = await with_tool_result(client)
    again = await chunks(await post(client, "/api/chat", body(messages=messages, script={"count": 1})))
    assert again[0] == {"type": "start", "messageId": answer_id}
    (_, stored) = (await client.get("/api/chat/c1/messages")).json()["messages"]
    assert stored["parts"][0]["output"] == "yes"
    assert stored["parts"][-1]["text"] == " word0"


async def test_a_page_that_resumes_a_continued_message_gets_its_earlier_parts() -> None:
    """A client of the SDK drops what it has of a message when it resumes it."""
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    (user, answer) = (await client.get("/api/chat/c1/messages")).json()["messages"]
    ask = {"type": "tool-ask", "toolCallId": "t9", "state": "output-available", "input": {}, "output": "yes"}
    failed = {"type": "tool-ask", "toolCallId": "t8", "state": "output-error", "input": {}, "errorText": "no"}
    parts = [
        {"type": "reasoning", "text": "Hm."},
        {"type": "text", "text": "First "},
        {"type": "data-card", "data": 1, "id": "d"},
        ask,
        failed,
    ]
    messages = [
        {"id": user["id"], "role": "user", "parts": []},
        {"id": answer["id"], "role": "assistant", "parts": parts},
    ]
    reply = await post(client, "/api/chat", body(messages=messages, script={"count": 2}))
    run = await Run.objects.alatest("created_at")
    first = await chunks(reply)
    assert "First " not in str(first)  # the page has it
    cut = await client.get(f"/api/{reply['Content-Location'].removeprefix('./')}")
    assert (await chunks(cut), cut["Content-Location"]) == (first, f"./stream?answer={run.pk}&part=run")
    resumed = await client.get(f"/api/chat/c1/stream?answer={run.pk}")
    whole = await chunks(resumed)
    assert resumed["Content-Location"] == f"./stream?answer={run.pk}"
    assert (whole[:2], whole[-len(first) + 2 :]) == (first[:2], renumbered(first[2:], 2))
    repeated = whole[2 : -len(first) + 2]
    assert [chunk["type"] for chunk in repeated if "start" not in chunk["type"] and "end" not in chunk["type"]] == [
        "reasoning-delta",
        "text-delta",
        "data-card",
        "tool-input-available",
        "tool-output-available",
        "tool-input-available",
        "tool-output-error",
        "finish-step",
    ]


async def test_pages_that_resume_a_continued_message_share_its_earlier_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Stream] = []

    def committed(stream: Stream) -> Any:
        reads.append(stream)
        return committed_events(stream)

    monkeypatch.setattr(vercel, "committed_events", committed)
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    (user, answer) = (await client.get("/api/chat/c1/messages")).json()["messages"]
    messages = [
        {"id": user["id"], "role": "user", "parts": []},
        {"id": answer["id"], "role": "assistant", "parts": [{"type": "text", "text": "First "}]},
    ]
    await chunks(await post(client, "/api/chat", body(messages=messages, script={"count": 1})))
    run = await Run.objects.alatest("created_at")
    resumed = [await client.get(f"/api/chat/c1/stream?answer={run.pk}") for _ in range(3)]
    wholes = [await chunks(response) for response in resumed]
    assert "First " in str(wholes[0])
    assert wholes[0] == wholes[1] == wholes[2]
    assert len(reads) == 1


async def test_the_durable_transport_resumes_a_continued_message_with_its_earlier_parts() -> None:
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    _, messages = await with_tool_result(client, {"type": "text", "text": "First "})
    begun = await post(client, "/api/pointer", body(messages=messages, script={"count": 1, "seconds": 60}))
    resumed = await client.get("/api/pointer/c1/stream")
    assert (resumed.status_code, resumed["Location"]) == (200, f"{begun['Location']}/whole")
    await client.post("/api/pointer/c1/stop")
    run = await (await Run.objects.select_related("chat__stream").alatest("created_at")).await_end()
    (rest, whole) = [(await client.get(url["Location"])).json() for url in (begun, resumed)]
    assert "First " not in str(rest)  # the page that has sent the message has it
    assert [*whole, "[DONE]"] == await chunks(await client.get(f"/api/chat/c1/stream?answer={run.pk}"))
    assert whole[3]["delta"] == "First "


async def test_the_durable_transport_resumes_another_message_where_it_was_begun() -> None:
    client = await client_of("ann")
    begun = await post(client, "/api/pointer", body(script={"count": 1, "seconds": 60}))
    assert (await client.get("/api/pointer/c1/stream"))["Location"] == begun["Location"]
    await client.post("/api/pointer/c1/stop")
    await (await Run.objects.select_related("chat__stream").aget()).await_end()


def renumbered(some: list[Any], by: int) -> list[Any]:
    """The chunks as they are after so many parts."""

    def later(chunk: Any) -> Any:
        kind, _, number = chunk["id"].rpartition("-") if isinstance(chunk, dict) and "id" in chunk else ("", "", "")
        return {**chunk, "id": f"{kind}-{int(number) + by}"} if kind in ("text", "reasoning") else chunk

    return [later(chunk) for chunk in some]


async def test_an_answer_names_its_place_and_is_read_there_after_its_end() -> None:
    client = await client_of("ann")
    reply = await post(client, "/api/chat", body(script={"count": 2}))
    first = await chunks(reply)
    place = reply["Content-Location"]
    run = await Run.objects.aget()
    assert place == f"./chat/c1/stream?answer={run.pk}"
    url = f"/api/{place.removeprefix('./')}"
    again = await client.get(url)
    assert again["Content-Location"] == f"./stream?answer={run.pk}"
    assert await chunks(again) == first
    assert (await client.get("/api/chat/c1/stream?answer=")).status_code == 204
    assert (await client.get("/api/chat/c1/stream?answer=x")).status_code == 400
    assert (await client.get(f"/api/chat/c1/stream?answer={uuid.uuid4()}")).status_code == 404
    # The id of an answer is no permission: the same URL means a chat of another user's own.
    assert (await (await client_of("bob")).get(url)).status_code == 404


async def test_messages_have_the_place_from_which_the_chat_goes_on() -> None:
    client = await client_of("ann")
    assert (await client.get("/api/chat/c1/messages")).json() == {"messages": [], "answer": "", "next_offset": "-1"}
    await chunks(await post(client, "/api/chat", body(script={"count": 2})))
    reply = await client.get("/api/chat/c1/messages")
    run = await Run.objects.select_related("chat__stream").aget()
    value = reply.json()
    assert value["next_offset"] == reply["Stream-Next-Offset"] == run.chat.stream.next_offset
    assert value["answer"] == ""
    assert [message["run"] for message in value["messages"]] == ["", str(run.pk)]
    # Each dialect but that of the AI SDK shows parts as the chat stores them.
    (_, answer), (_, plain) = value["messages"], (await client.get("/api/agui/c1/messages")).json()["messages"]
    tools = [[part for part in message["parts"] if "tool" in part["type"]] for message in (answer, plain)]
    assert [part["type"] for (part,) in tools] == ["tool-look_up", "tool"]
    assert tools[0][0]["state"] == "output-available"


async def test_a_page_branches_a_chat_at_a_message() -> None:
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    await chunks(await post(client, "/api/chat", body(messages=[{"id": "u2", "role": "user", "parts": []}])))
    reply = await post(client, "/api/chat/c1/branch", {"before": "u2"})
    assert reply.status_code == 201
    branch = reply.json()["id"]
    old, new = [(await client.get(f"/api/chat/{id}/messages")).json()["messages"] for id in ("c1", branch)]
    assert (len(old), new) == (4, old[:2])
    # The new chat goes on by itself, and the old one stays.
    await chunks(await post(client, "/api/chat", body(branch, messages=[{"id": "u3", "role": "user", "parts": []}])))
    assert len((await client.get(f"/api/chat/{branch}/messages")).json()["messages"]) == 4
    assert (await client.get("/api/chat/c1/messages")).json()["messages"] == old
    assert (await post(client, "/api/chat/c1/branch", {"id": "whole"})).json() == {"id": "whole"}
    assert (await client.get("/api/chat/whole/messages")).json()["messages"] == old


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"before": "u9"}, 404),
        ({"id": "c1"}, 409),
        ({"id": "c1", "before": "u1"}, 409),
        ({"id": "../c"}, 400),
        ({"before": 5}, 400),
        ([], 400),
        (b"", 400),
    ],
)
async def test_a_branch_that_cannot_be_is_refused(value: Any, status: int) -> None:
    client = await client_of("ann")
    await chunks(await post(client, "/api/chat", body(script={"count": 1})))
    assert (await post(client, "/api/chat/c1/branch", value)).status_code == status
    assert await Chat.objects.acount() == 1


async def test_the_same_branch_again_is_a_409_and_so_is_one_of_an_unfinished_answer() -> None:
    client = await client_of("ann")
    running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
    assert (await post(client, "/api/chat/c1/branch", {})).status_code == 409
    for status in (201, 409):
        assert (await post(client, "/api/chat/c1/branch", {"id": "c2", "before": "u1"})).status_code == status
    await client.post("/api/chat/c1/stop")
    await chunks(running)
    assert await Chat.objects.acount() == 2


async def test_a_branch_needs_permission_to_read_the_one_and_to_write_the_other() -> None:
    """`ann` may read all, and `bob` nothing; nobody may write in what `ann` owns but she herself."""
    stream = await Stream.objects.acreate(path="all/c1", content_type="application/json")
    await Chat.objects.acreate(stream=stream, owner="0")
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": "tests.ai.test_views.ReadersOnly"}):
        ann, bob = await client_of("ann"), await client_of("bob")
        for client, chat, value, status in (
            (bob, "c1", {"id": "new"}, 403),
            (bob, "none", {"id": "new"}, 403),
            (ann, "c1", {"id": "c1"}, 403),
            (ann, "none", {"id": "new"}, 404),
            (ann, "c1", {"id": "new"}, 201),
        ):
            assert (await post(client, f"/api/chat/{chat}/branch", value)).status_code == status
    owner = await User.objects.aget(username="ann")
    assert [chat.owner async for chat in Chat.objects.order_by("pk")] == ["0", str(owner.pk)]


class ReadersOnly(ChatPermission):
    def allows(self, action: str, user: Any, path: str, chat: Chat | None) -> bool:
        if user.username == "bob":
            return action == "write" and chat is None
        return action == "read" or chat is None

    def path(self, user: Any, chat_id: str) -> str:
        return f"all/{chat_id}"


def agui_body(run: str, *texts: str, count: int = 1) -> dict[str, Any]:
    """Return the input of a run whose messages are u1, u2, …"""
    messages = [{"id": f"u{number}", "role": "user", "content": text} for number, text in enumerate(texts, 1)]
    return {"threadId": "c1", "runId": run, "messages": messages, "forwardedProps": {"script": {"count": count}}}


async def texts_of(client: AsyncClient, url: str) -> list[str]:
    messages = (await client.get(f"{url}/c1/messages")).json()["messages"]
    return ["".join(part.get("text", "") for part in message["parts"]) for message in messages]


async def test_another_run_of_ag_ui_makes_the_answer_again_and_the_same_run_does_not() -> None:
    client = await client_of("ann")
    first = await chunks(await post(client, "/api/agui", agui_body("r1", "a", count=1)))
    assert await chunks(await post(client, "/api/agui", agui_body("r1", "a", count=2))) == first
    await chunks(await post(client, "/api/agui", agui_body("r2", "a", "b", count=1)))
    assert len(await texts_of(client, "/api/agui")) == 4
    # Another answer to the first message, which was edited: nothing of what followed it counts.
    again = await chunks(await post(client, "/api/agui", agui_body("r3", "edited", count=2)))
    texts = await texts_of(client, "/api/agui")
    assert (texts[0], len(texts)) == ("edited", 2)
    assert texts[1].endswith("word0 word1")
    # Late copies of earlier requests change nothing.
    for run in ("r3", "r1"):
        assert (await chunks(await post(client, "/api/agui", agui_body(run, "a"))))[1:-1] == again[1:-1]
    assert await texts_of(client, "/api/agui") == texts


async def test_the_newest_message_of_tanstack_once_more_makes_the_answer_again() -> None:
    client = await client_of("ann")

    async def send(*texts: str, count: int) -> None:
        messages = [
            {"id": f"u{number}", "role": "user", "parts": [{"type": "text", "content": text}]}
            for number, text in enumerate(texts, 1)
        ]
        value = {"messages": messages, "data": {"script": {"count": count}}}
        assert (await post(client, "/api/tanstack?id=c1", value)).status_code == 202
        run = await Run.objects.select_related("chat__stream").order_by("-created_at").afirst()
        assert run is not None
        await run.await_end()

    await send("a", count=1)
    await send("a", "b", count=1)
    await send("a", "edited", count=2)
    texts = await texts_of(client, "/api/tanstack")
    assert (len(texts), texts[2], texts[3].endswith("word0 word1")) == (4, "edited", True)
    await send("a", count=5)  # a late copy of the first request
    assert await texts_of(client, "/api/tanstack") == texts
    values = (await client.get("/api/tanstack/c1/stream?offset=-1")).json()
    snapshots = [value["messages"] for value in values if value["type"] == "MESSAGES_SNAPSHOT"]
    assert [message["id"] for message in snapshots[-1]] == ["u1", snapshots[-1][1]["id"], "u2"]
    assert snapshots[-1][2]["parts"] == [{"type": "text", "content": "edited"}]
    assert {part["type"] for part in snapshots[-1][1]["parts"]} == {"thinking", "text", "tool-call", "tool-result"}


async def test_a_read_of_a_chat_of_tanstack_creates_nothing() -> None:
    client, url = await client_of("ann"), "/api/tanstack/c1/stream"
    reply = await client.get(f"{url}?offset=-1")
    offset = reply["Stream-Next-Offset"]
    assert (reply.status_code, reply.json(), reply["Stream-Up-To-Date"]) == (200, [], "true")
    assert (await client.get(f"{url}?offset=0000000000000000_{5:016d}")).status_code == 404
    assert (await client.get(f"{url}?live=always")).status_code == 400
    with override_settings(DURABLE_STREAMS={"LONG_POLL_TIMEOUT": 0.01}):
        reply = await client.get(f"{url}?offset={offset}&live=long-poll")
    assert (reply.status_code, reply["Stream-Next-Offset"]) == (204, offset)
    assert not await Stream.objects.aexists()


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
async def test_a_live_reader_of_tanstack_is_there_before_its_chat(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of this process wakes it: it would look by itself a minute later."""
    monkeypatch.setattr(absent, "LOOK_SECONDS", 60.0)
    client = await client_of("ann")
    waiting = asyncio.create_task(_first_chunks(client, f"/api/tanstack/c1/stream?offset=-1&live={mode}"))
    for _ in range(1000):  # nothing tells that it waits
        if not absent._waiting:
            await asyncio.sleep(0.01)
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "content": "Hi"}]}
    value = {"messages": [message], "data": {"script": {"count": 1}}}
    assert (await post(client, "/api/tanstack?id=c1", value)).status_code == 202
    async with asyncio.timeout(30):
        assert b"TEXT_MESSAGE_START" in await waiting
    assert not absent._waiting


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
async def test_a_reader_that_waits_for_its_chat_ends_with_the_server(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absent, "LOOK_SECONDS", 60.0)
    client = await client_of("ann")
    waiting = asyncio.create_task(_read_whole(client, f"/api/tanstack/c1/stream?offset=-1&live={mode}"))
    for _ in range(1000):  # nothing tells that it waits
        if not absent._waiting:
            await asyncio.sleep(0.01)
    assert len(engine_for().live_reader_limit) == 1
    stop_readers_of(asyncio.get_running_loop())
    async with asyncio.timeout(10):
        await waiting
    assert not absent._waiting
    assert len(engine_for().live_reader_limit) == 0


async def test_readers_of_chats_count_among_the_live_readers() -> None:
    """Each holds a connection, and looks at the database again and again if its chat is not there."""
    client = await client_of("ann")
    urls = ["/api/tanstack/c1/stream?live=sse", "/api/tanstack/c1/stream?live=long-poll"]
    with override_settings(DURABLE_STREAMS={"MAX_LIVE_READERS": 1, "LONG_POLL_TIMEOUT": 30.0}):
        for url in urls:
            async with _reading(client, url):
                for other in urls:
                    refused = await client.get(other)
                    assert (refused.status_code, refused["Retry-After"]) == (503, "5")
                assert (await client.get("/api/tanstack/c1/stream")).status_code == 200  # it does not wait
        pointer = await post(client, "/api/pointer", body("c2", script={"count": 1, "seconds": 60}))
        urls = [f"{pointer['Location']}?offset=0000000000000000_{9:016d}&live={mode}" for mode in ("sse", "long-poll")]
        for url in urls:
            async with _reading(client, url):
                assert [(await client.get(other)).status_code for other in urls] == [503, 503]
        await client.post("/api/pointer/c2/stop")


@pytest.mark.parametrize("route", ["chat", "agui"])
async def test_a_resumed_answer_counts_among_the_live_readers(route: str) -> None:
    client = await client_of("ann")
    messages = [{"id": "u1", "role": "user", "content": "Hi", "parts": [{"type": "text", "text": "Hi"}]}]
    script = {"count": 1, "seconds": 60}
    value = {"id": "c1", "threadId": "c1", "runId": "r1", "messages": messages}
    with override_settings(DURABLE_STREAMS={"MAX_LIVE_READERS": 1}):
        fields = {"script": script, "forwardedProps": {"script": script}}
        (await post(client, f"/api/{route}", {**value, **fields})).close()  # it has the slot
        async with _reading(client, f"/api/{route}/c1/stream"):
            assert (await client.get(f"/api/{route}/c1/stream")).status_code == 503
        await client.post(f"/api/{route}/c1/stop")


@asynccontextmanager
async def _reading(client: AsyncClient, url: str) -> AsyncIterator[None]:
    """A client that reads, and leaves at the end of the block."""
    slots = engine_for().live_reader_limit
    task = asyncio.create_task(_read_whole(client, url))
    for _ in range(1000):  # nothing tells that it waits
        if not len(slots):
            await asyncio.sleep(0.01)
    assert len(slots) == 1
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert len(slots) == 0


async def _read_whole(client: AsyncClient, url: str) -> None:
    reply: Any = await client.get(url)
    if reply.streaming:
        assert b"".join([piece async for piece in reply])
    else:
        assert reply.status_code == 204


async def _first_chunks(client: AsyncClient, url: str) -> bytes:
    reply: Any = await client.get(url)
    assert reply.status_code == 200
    if not reply.streaming:
        return bytes(reply.content)
    data = b""
    pieces = aiter(reply)
    while b"TEXT_MESSAGE_START" not in data:
        data += await anext(pieces)
    await pieces.aclose()
    return data


async def test_a_waiting_reader_gets_nothing_of_a_chat_that_others_create(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absent, "LOOK_SECONDS", 0.05)
    with override_settings(DURABLE_STREAMS={"AI_PERMISSION_CLASS": "tests.ai.test_views.RacedPaths"}):
        client = await client_of("ann")
        reply: Any = await client.get("/api/tanstack/c1/stream?offset=-1&live=sse")
        pieces = aiter(reply)
        assert b"upToDate" in await anext(pieces)
        stream = await Stream.objects.acreate(path="raced/c1", content_type="application/json")
        await Chat.objects.acreate(stream=stream, owner="0")
        assert [piece async for piece in pieces] == []


@sync_to_async
def _under_wsgi() -> tuple[Any, Any]:
    client = Client()
    client.force_login(User.objects.create(username="ann"))
    reply: Any = client.post("/api/chat", json.dumps(body(script={"count": 2})), content_type="application/json")
    return reply.status_code, b"".join(reply.streaming_content)


async def test_the_views_work_under_wsgi() -> None:
    status, data = await _under_wsgi()
    assert status == 200
    assert data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("mode", ["", "&live=long-poll"])
async def test_an_answer_is_read_by_the_protocol(mode: str) -> None:
    client = await client_of("ann")
    pointer = await post(client, "/api/pointer", body(script={"count": 3}))
    assert pointer.status_code == 201
    assert pointer.json() == {"streamUrl": pointer["Location"]}
    url, offset = pointer["Location"], "-1"
    values: list[Any] = []
    is_closed = False
    while not is_closed:
        reply = await client.get(f"{url}?offset={offset}{mode}")
        values += reply.json()
        offset, is_closed = reply["Stream-Next-Offset"], "Stream-Closed" in reply
        assert reply["Stream-Up-To-Date"] == "true"
    assert values[-1] == {"type": "finish", "finishReason": "stop"}
    middle = f"0000000000000000_{5:016d}"
    assert (await client.get(f"{url}?offset={middle}")).json() == values[5:]
    assert (await client.get(f"{url}?offset=5")).status_code == 400
    assert (await client.get(f"{url}?live=always")).status_code == 400
    run = await Run.objects.aget()
    assert (await client.get(f"/api/pointer/c2/answers/{run.pk}")).status_code == 404
