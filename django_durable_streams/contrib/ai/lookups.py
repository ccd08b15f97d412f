"""Look-ups of chats for requests: one query for the chats of all requests that ask at the same moment.

An optimisation: a reader's request would otherwise have a thread's connection opened and closed around two queries of
its own (`python -m benchmarks.answers`).

- Invariant: a request gets a chat as it was committed when the request asked, or later.
- Why it holds: the query for a request begins after the request. One that is under way is never joined.
- Switch off: let `find` call `find_all` for its own path.

Knows no requests and no permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple, cast

from django.db.models import QuerySet

from ...engine import engine_for
from ...models import Stream
from ...runtime.call_worker import CallWorker
from ...runtime.monitor import monitor_for
from ...runtime.process_objects import ProcessObjects
from ...runtime.results import Reply, copy_of
from ...store.sql.rows import slices
from .models import Chat, Run

MAX_QUERIES = 1000
"""Queries that wait for the thread. There is one for each event loop at most."""


class ChatAndRun(NamedTuple):
    """What is at a path: the chat, and the run that writes an answer in it."""

    chat: Chat | None
    run: Run | None


NOTHING = ChatAndRun(None, None)


def find_all(paths: Collection[str], using: str) -> dict[str, ChatAndRun]:
    """Return the chats at paths, and their active runs. Two queries for all of them."""
    by_path: dict[str, ChatAndRun] = {}
    for some in slices(sorted(paths)):
        alive: QuerySet[Stream] = Stream.objects.using(using).alive().filter(path__in=some)
        chats = {chat.pk: chat for chat in Chat.objects.using(using).select_related("stream").filter(stream__in=alive)}
        runs = {run.active_chat_id: run for run in Run.objects.using(using).filter(active_chat__in=[*chats])}
        for pk, chat in chats.items():
            run = runs.get(pk)
            if run is not None:
                run.chat = chat
            by_path[chat.path] = ChatAndRun(chat, run)
    return by_path


class Lookups:
    """The look-ups of one database in this process, in a thread of their own.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        engine_for(using)  # which ends with this
        self._using = using
        self._worker = CallWorker("durable-streams-chats", monitor_for(using), MAX_QUERIES)
        self._waiting: dict[asyncio.AbstractEventLoop, dict[str, list[Reply]]] = {}
        """By event loop with a query under way, and by path: the requests that wait for the next query."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, path: str) -> ChatAndRun:
        """Return what is at a path.

        Raises:
            DurableStreamsError: the database does not answer.
        """
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = {}
            task = loop.create_task(self._look_while_needed(loop))  # it begins with the next turn of the loop
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        reply = Reply(loop=loop)
        waiting.setdefault(path, []).append(reply)
        return cast("ChatAndRun", await reply)

    def stop(self) -> None:
        """End the thread."""
        self._worker.stop()

    async def _look_while_needed(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while waiting := self._waiting[loop]:
                self._waiting[loop] = {}
                await self._look(waiting)
        finally:
            del self._waiting[loop]

    async def _look(self, waiting: dict[str, list[Reply]]) -> None:
        by_path: dict[str, ChatAndRun] = {}
        failure: Exception | None = None
        try:
            by_path = await self._worker.call(find_all, [*waiting], self._using)
        except Exception as error:
            failure = error
        for path, replies in waiting.items():
            for reply in replies:
                reply.resolve(by_path.get(path, NOTHING) if failure is None else copy_of(failure))


_lookups = ProcessObjects[Lookups]()


def lookups_of(using: str) -> Lookups:
    """Return this process's look-ups of a database. The first call makes them."""
    return _lookups.get(using, lambda: Lookups(using))
