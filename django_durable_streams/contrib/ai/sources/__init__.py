"""Sources: what an answer is made of. Any iterator of texts and events is one, asynchronous or not.

The modules beside this one turn the streams of providers' SDKs into events. Knows no table and no stream.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.utils.module_loading import import_string

from ....runtime.results import Reply, as_failure, call_in
from ..events import FROM_SOURCES, TEXTS, AnyEvent, Event, Text, check_types
from ..history import ChatMessage

if TYPE_CHECKING:
    from ..models import Chat

logger = logging.getLogger(__name__)

Values = AsyncIterable[Any] | Iterable[Any]


@dataclass(frozen=True, slots=True)
class AnswerContext:
    """What a source knows of the answer that it makes.

    Attributes:
        run: the id of the run.
        chat: the chat. Its row is read-only here.
        user: primary key of the user who has started the run, as text.
        messages: the messages of the chat before the answer, for the request to a model.
        written: the events that an earlier worker of this run has written before it vanished. The source yields only
            what follows them. Empty at the first attempt.
    """

    run: str
    chat: Chat
    user: str
    messages: list[ChatMessage] = field(default_factory=list)
    written: list[AnyEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text that is written already."""
        return "".join(event.text for event in self.written if isinstance(event, Text))


Source = Values | Callable[[AnswerContext], Values | Awaitable[Values]] | str
"""An iterator, a function that returns one, or the dotted path of such a function."""


def is_dotted(source: object) -> bool:
    """Return whether a source is a dotted path, so that any process can run it, again and again."""
    return isinstance(source, str)


async def values_of(source: Source, context: AnswerContext, arguments: dict[str, Any]) -> Values:
    """Return the iterator of a source, which may be a function or its dotted path.

    Raises:
        ImportError: there is nothing at the dotted path.
        TypeError: the source is no iterator, and returns none.
        The error of the function.
    """
    made: Any = import_string(source) if isinstance(source, str) else source
    if callable(made) and not isinstance(made, AsyncIterable | Iterable):
        call = partial(made, context, **arguments)
        made = call() if _returns_at_once(made) else await _in_a_thread(call)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, str | bytes) or not isinstance(made, AsyncIterable | Iterable):
        raise TypeError(f"A source is an iterator of texts and events, not {type(made).__name__}.")
    return made


def _returns_at_once(function: Callable[..., object]) -> bool:
    return any(
        is_kind(function)
        for is_kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    )


async def _in_a_thread(function: Callable[[], object]) -> object:
    """Call a synchronous function, which may wait for a provider or use the database, and return its value."""
    reply = Reply(loop=asyncio.get_running_loop())

    def run() -> None:
        try:
            value = function()
        except BaseException as error:
            value = as_failure(error)
        finally:
            connections.close_all()
        call_in(reply.get_loop(), reply.resolve, value)

    _start_thread(run)
    return await reply


def _start_thread(run: Callable[[], None]) -> None:
    """Start a daemon thread: source code that waits for a provider must not delay the end of the process."""
    Thread(target=partial(copy_context().run, run), name="durable-streams-answer", daemon=True).start()


async def events_of(values: Values) -> AsyncGenerator[Event, None]:
    """Yield the events of a source's iterator. Texts become `Text`, and empty ones are left out.

    Raises:
        TypeError: the iterator yields something else, or an event with a field of another type.
        The error of the iterator.
    """
    iterator = values if isinstance(values, AsyncIterable) else _in_thread(values)
    try:
        async for value in iterator:
            event = Text(value) if isinstance(value, str) else value
            if not isinstance(event, FROM_SOURCES):
                raise TypeError(f"A source yields texts and events, not {type(value).__name__}.")
            if not isinstance(event, TEXTS):
                check_types(event)
            elif type(event.text) is not str:
                event = type(event)(_plain(event.text))
            if not (isinstance(event, TEXTS) and not event.text):
                yield event
    finally:
        close = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
        if close is not None and inspect.isawaitable(closing := close()):
            await closing


def _plain(text: object) -> str:
    """Return a text of a subclass of `str`, such as that of a rendered template, as `str` itself.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"The text of an event is a str, not {type(text).__name__}.")
    return str.__str__(text)


_END = object()

_Steps = SimpleQueue[Reply | None]


async def _in_thread(values: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield the values of a synchronous iterator, which has a thread of its own from its beginning to its close."""
    steps: _Steps = SimpleQueue()
    _start_thread(partial(_run_steps, values, steps))
    try:
        while True:
            reply = Reply(loop=asyncio.get_running_loop())
            steps.put(reply)
            value = await reply
            if value is _END:
                return
            yield value
    finally:
        steps.put(None)  # it may block in a step, and the loop must not wait


def _run_steps(values: Iterable[Any], steps: _Steps) -> None:
    """Take a value for each reply in the queue. Called in the thread of the iterator."""
    iterator: Iterator[Any] | None = None
    try:
        while (reply := steps.get()) is not None:
            try:
                iterator = iter(values) if iterator is None else iterator
                value = next(iterator, _END)
            except BaseException as error:
                value = as_failure(error)
            call_in(reply.get_loop(), reply.resolve, value)
        if inspect.isgenerator(iterator):
            iterator.close()
    except Exception:
        logger.exception("The source of an answer could not be closed.")
    finally:
        connections.close_all()


__all__ = ["AnswerContext", "Source", "Values", "events_of", "is_dotted", "values_of"]
