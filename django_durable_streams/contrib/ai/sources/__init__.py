"""Sources: what an answer is made of. Any iterator of texts and events is one, asynchronous or not.

The modules beside this one turn the streams of providers' SDKs into events. Knows no table and no stream.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.utils.module_loading import import_string

from ..events import FROM_SOURCES, AnyEvent, Event, Reasoning, Text
from ..history import ChatMessage

if TYPE_CHECKING:
    from ..models import Chat

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
        made = made(context, **arguments)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, str | bytes) or not isinstance(made, AsyncIterable | Iterable):
        raise TypeError(f"A source is an iterator of texts and events, not {type(made).__name__}.")
    return made


async def events_of(values: Values) -> AsyncGenerator[Event, None]:
    """Yield the events of a source's iterator. Texts become `Text`, and empty ones are left out.

    Raises:
        TypeError: the iterator yields something else.
        The error of the iterator.
    """
    iterator = values if isinstance(values, AsyncIterable) else _in_thread(values)
    try:
        async for value in iterator:
            event = Text(value) if isinstance(value, str) else value
            if not isinstance(event, FROM_SOURCES):
                raise TypeError(f"A source yields texts and events, not {type(value).__name__}.")
            if not (isinstance(event, Text | Reasoning) and not event.text):
                yield event
    finally:
        close = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
        if close is not None and inspect.isawaitable(closing := close()):
            await closing


async def _in_thread(values: Iterable[Any]) -> AsyncIterator[Any]:
    """Yield the values of a synchronous iterator, which runs in a thread of its own."""
    end = object()
    executor = ThreadPoolExecutor(1, "durable-streams-answer")

    def step(iterator: Iterator[Any]) -> Any:
        try:
            return next(iterator, end)
        finally:
            connections.close_all()

    take = sync_to_async(step, thread_sensitive=False, executor=executor)
    iterator = iter(values)
    try:
        while (value := await take(iterator)) is not end:
            yield value
    finally:
        executor.shutdown(wait=False, cancel_futures=True)  # the iterator may block, and the loop must not
        if inspect.isgenerator(iterator) and not iterator.gi_running:
            iterator.close()


__all__ = ["AnswerContext", "Source", "Values", "events_of", "is_dotted", "values_of"]
