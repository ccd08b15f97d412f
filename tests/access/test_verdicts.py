"""Only a yes allows. An object that is true whatever is in it is a mistake of the project, and allows nobody."""

import logging
import re
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from http import HTTPStatus
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponseForbidden
from django.utils.functional import SimpleLazyObject

from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, Permission
from tests.access.operations import OPERATIONS
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint


def generator() -> Iterator[bool]:
    yield False


async def asynchronous_generator() -> AsyncIterator[bool]:
    yield False


async def coroutine() -> bool:
    return False


async def method_without_its_call() -> Any:
    return "abc".isdigit


class Decision(Enum):
    REFUSED = "refused"


class Own:
    """As numpy's booleans, and Django's lazy objects."""

    def __init__(self, value: bool = False) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return self.value


class Always:
    """Is always true, as a user is. `weakref.proxy` takes no objects of built-in classes."""


ALWAYS = Always()

MISTAKES: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "asynchronous generator": asynchronous_generator,
    "filter": lambda: filter(None, [0]),
    "method": lambda: "abc".isdigit,
    "lambda": lambda: lambda: False,
    "class": lambda: bool,
    "NotImplemented": lambda: NotImplemented,
    "error": lambda: ValueError("no"),
    "method from a coroutine": method_without_its_call,
    "response": HttpResponseForbidden,
    "policy": lambda: {"allowed": False},
    "pair": lambda: (False, "no member"),
    "member of an enum": lambda: Decision.REFUSED,
    "number of an enum": lambda: HTTPStatus.FORBIDDEN,
    "row": lambda: Stream(path="a"),
    "match": lambda: re.match("", "a"),
    "text": lambda: "no",
    "list": lambda: [False],
    "lazy user": lambda: SimpleLazyObject(AnonymousUser),
    "lazy policy": lambda: SimpleLazyObject(lambda: {"allowed": False}),
    "lazy response": lambda: SimpleLazyObject(HttpResponseForbidden),
    "lazy method": lambda: SimpleLazyObject(lambda: "abc".isdigit),
    "proxy": lambda: weakref.proxy(ALWAYS),
}
NO: dict[str, Callable[[], Any]] = {
    "False": bool,
    "None": lambda: None,
    "0": int,
    "coroutine": coroutine,
    "own no": Own,
    "lazy no": lambda: SimpleLazyObject(bool),
}
YES: dict[str, Callable[[], Any]] = {
    "True": lambda: True,
    "1": lambda: 1,
    "own yes": lambda: Own(True),
    "lazy yes": lambda: SimpleLazyObject(lambda: True),
}


class Answering(Permission):
    """Answers all questions with the same."""

    needs_user = False
    answer: ClassVar[Callable[[], Any]]

    def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        return type(self).answer()

    can_create = can_append = can_close = can_delete = can_read


class InMemory(Answering):
    in_memory = True


class Asynchronous(Answering):
    async def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        answer = type(self).answer()
        return await answer if hasattr(answer, "cr_code") else answer

    can_create = can_append = can_close = can_delete = can_read


CLASSES = (Answering, InMemory, Asynchronous)


@pytest.fixture(autouse=True)
def streams(engines: None, transactional_db: None) -> None:
    Stream.objects.create(path="a", content_type="text/plain").append("abc")
    Stream.objects.create(path="closed", content_type="text/plain", closed=True, data="abc")


async def statuses(entry: str, permission: type[Answering], answer: Callable[[], Any]) -> set[int]:
    """Send each operation, and return the statuses."""
    point = EntryPoint(entry)
    replies = set()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.{permission.__name__}", LONG_POLL_TIMEOUT=0.05):
        permission.answer = staticmethod(answer)
        for name, (method, target, fields, body, _) in OPERATIONS.items():
            if (entry, name) != ("wsgi", "sse"):
                reply = await point.request(method, target, fields, body)
                replies.add(reply.status)
    return replies


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("permission", CLASSES)
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.slow
async def test_a_mistake_allows_nothing(
    entry: str, permission: type[Answering], mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "django_durable_streams.server.failures"):
        assert await statuses(entry, permission, MISTAKES[mistake]) == {500}
    assert (await Stream.objects.aget(path="a")).tail_position == 3
    assert not await Stream.objects.filter(path="made").aexists()


@pytest.mark.parametrize("permission", CLASSES)
@pytest.mark.parametrize("answer", [*NO, *YES])
async def test_other_answers_are_yes_or_no(permission: type[Answering], answer: str) -> None:
    expected = {403} if answer in NO else {200, 201, 204}
    assert await statuses("asgi", permission, {**NO, **YES}[answer]) <= expected | ({409} if answer in YES else set())


async def test_the_log_names_the_method(caplog: pytest.LogCaptureFixture) -> None:
    await statuses("asgi", Answering, lambda: "abc".isdigit)
    text = "\n".join(record.exc_text or str(record.exc_info) for record in caplog.records)
    assert "can_read has returned <built-in method isdigit" in text
    assert "Return True or False." in text
