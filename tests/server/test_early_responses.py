"""Responses that are made before the commit, and sent only if the commit leads to their outcome."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.results import Reply
from django_durable_streams.server import dispatch, writes
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.handlers import HANDLERS
from django_durable_streams.store.operations import Appended
from tests.asgi_client import AsgiClient
from tests.asgi_client import Reply as ClientReply

ANNOUNCED = Appended(5, False, generation=7)


async def answer_of(monkeypatch: pytest.MonkeyPatch, outcome: object, announced: object = ANNOUNCED) -> ClientReply:
    """Append where an engine announces an outcome, and then has one."""

    class Engine:
        def post(self, task: object, reply: Reply) -> None:
            reply.prepare(announced)
            asyncio.get_running_loop().call_soon(reply.resolve, outcome)

    monkeypatch.setattr(dispatch, "engine_for", Engine)
    return await AsgiClient(DurableStreams()).append("a", b"x")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Get the tails of all responses that are made."""
    tails: list[int] = []
    real: Callable[..., Any] = writes.respond_append
    handler = HANDLERS["POST"]

    def respond(request: Any, engine: Any, result: Appended) -> Any:
        tails.append(result.tail)
        return real(request, engine, result)

    monkeypatch.setitem(HANDLERS, "POST", handler._replace(respond=respond))
    return tails


async def test_the_response_is_made_once(monkeypatch: pytest.MonkeyPatch, made: list[int]) -> None:
    reply = await answer_of(monkeypatch, ANNOUNCED)
    assert (reply.status, reply.headers["stream-next-offset"]) == (204, ANNOUNCED.offset)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert made == [5]


async def test_an_equal_outcome_is_another_one(monkeypatch: pytest.MonkeyPatch, made: list[int]) -> None:
    await answer_of(monkeypatch, Appended(5, False, generation=7))
    assert made == [5, 5]


async def test_another_outcome_has_its_own_response(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = await answer_of(monkeypatch, Appended(9, True, generation=7))
    assert reply.headers["stream-next-offset"] == Appended(9, True, generation=7).offset
    assert reply.headers["stream-closed"] == "true"
    assert [name for name, _ in reply.header_list].count(b"x-content-type-options") == 1


async def test_a_commit_that_fails_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = await answer_of(monkeypatch, ServiceUnavailable("The database did not confirm this. Try again."))
    assert reply.status == 503


async def test_a_response_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Appended("no number", False)  # type: ignore[arg-type]
    assert (await answer_of(monkeypatch, broken, broken)).status == 500
