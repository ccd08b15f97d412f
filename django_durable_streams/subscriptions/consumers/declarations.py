"""The declaration of consumers: the decorator, and the registry of all consumers of the project.

Django imports the module `streams` of each installed app, so that the consumers there are registered. Knows no row.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack, get_args

from asgiref.sync import async_to_sync
from django.db import router

from ...conf import config
from ...models import Stream
from ...protocol.globs import glob
from ...protocol.producers import SERVER_MARK
from .batch_size import BatchSize
from .messages import Batch, MessageType, Upcaster

Start = Literal["new", "beginning"]
OnFailure = Literal["park", "stop"]

Handler = Callable[[Batch], Any]
Reset = Callable[[list[str]], Any]

DEAD_LETTERS = "dead-letters"
"""Root of the paths of the dead-letter streams."""

MAX_LEASE_SECONDS = 600.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ConsumerError(Exception):
    """Something cannot be done with a consumer. Nothing was changed. The text says why, and what to do."""


class ConsumerOptions(TypedDict, total=False):
    """The options of a consumer. See `consumer`."""

    batch_size: BatchSize
    start: Start
    max_attempts: int
    on_failure: OnFailure
    using: str | None
    upcasters: Mapping[Any, Upcaster]
    message_type: MessageType
    lease: float
    dead_letters: str
    task_backend: str | None
    task_queue: str


@dataclass(slots=True, eq=False, kw_only=True)
class Consumer:
    """A registered handler. Calling it calls the handler, such as in a test of the handler alone."""

    name: str
    pattern: str
    handler: Handler
    batch_size: BatchSize = 100
    start: Start = "new"
    max_attempts: int = 5
    on_failure: OnFailure = "park"
    using: str | None = None
    upcasters: Mapping[Any, Upcaster] = field(default_factory=dict)
    message_type: MessageType = "type"
    lease: float = 30.0
    dead_letters: str = ""
    task_backend: str | None = None
    task_queue: str = "default"
    reset_function: Reset | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(
                f"The name of a consumer has 1 to 100 letters, digits, dots, hyphens and underscores: {self.name!r}."
            )
        if not callable(self.handler) or _is_generator(self.handler):
            raise TypeError(f"The consumer {self.name} needs a function or a coroutine function that takes a batch.")
        for name in ("batch_size", "max_attempts"):
            value = getattr(self, name)
            is_automatic = (name, value) == ("batch_size", "auto")
            if not is_automatic and (type(value) is not int or value < 1):
                choice = ' or "auto"' if name == "batch_size" else ""
                raise ValueError(f"{name} of the consumer {self.name} must be a whole number from 1 on{choice}.")
        for name, choices in (("start", get_args(Start)), ("on_failure", get_args(OnFailure))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} of the consumer {self.name} must be {' or '.join(map(repr, choices))}.")
        if not 1 <= self.lease <= MAX_LEASE_SECONDS:
            raise ValueError(f"lease of the consumer {self.name} must be from 1 to {MAX_LEASE_SECONDS:.0f} seconds.")
        self.dead_letters = self.dead_letters or f"{DEAD_LETTERS}/{self.name}"

    def __call__(self, batch: Batch) -> Any:
        """Call the handler."""
        return self.handler(batch)

    def handle(self, batch: Batch) -> None:
        """Call the handler, and wait for it if it is asynchronous. Its ORM calls use this thread's connection.

        Raises:
            TypeError: the handler has returned a generator, which has done nothing yet.
        """
        result = self.handler(batch)
        if inspect.isawaitable(result):
            async_to_sync(_wait_for)(result)
        elif inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(f"The handler of the consumer {self.name} has returned a generator, so it has not run.")

    def reset(self, function: Reset) -> Reset:
        """Register the function that takes back the effects on a list of streams, before a replay. A decorator."""
        self.reset_function = function
        return function

    @property
    def alias(self) -> str:
        """Alias of the database of its streams."""
        return self.using or router.db_for_write(Stream)

    @property
    def tasks_alias(self) -> str:
        """Alias of the backend of the task framework that runs it. Empty: workers run it."""
        return config().consumer_task_backend if self.task_backend is None else self.task_backend

    @property
    def stored_name(self) -> str:
        """The name of its subscription. No client can send the mark, so no request can see or take the subscription."""
        return SERVER_MARK + self.name

    def follows(self, path: str) -> bool:
        """Return whether the consumer handles the stream at a path.

        Dead letters are left out where only wildcards match them: two consumers of all streams would otherwise park
        each other's dead letters without end.
        """
        pattern = glob(self.pattern)
        if not pattern.matches(path) or path == self.dead_letters:
            return False
        return bool(pattern.prefix) or path not in {other.dead_letters for other in registered()}


async def _wait_for(awaitable: Any) -> None:
    await awaitable


def _is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


_consumers: dict[str, Consumer] = {}
_duplicates: list[Consumer] = []


def consumer(pattern: str, *, name: str, **options: Unpack[ConsumerOptions]) -> Callable[[Handler], Consumer]:
    """Make a function or a coroutine function the handler of all streams that match a pattern. A decorator.

    Args:
        pattern: paths of the streams: `*` is one whole segment, `**` any number of segments.
        name: name of the consumer, under which the database has its cursors.
        **options: further options:

            - batch_size: the largest number of messages that the handler gets at once. `auto`: as many as it handles in
              a tenth of a second.
            - start: where streams are read from that are older than the consumer: `new`, their ends, or `beginning`.
            - max_attempts: how often a batch is tried.
            - on_failure: what happens then to the message that fails: `park` appends it to the dead-letter stream, and
              the consumer goes on behind it; `stop` stops the stream until somebody resumes it.
            - using: alias of the database. None: the database to which the router has streams written.
            - upcasters: functions that bring old messages into today's form, by the type of the message.
            - message_type: the field of a JSON object that has the type, or a function that returns the type of a
              value.
            - lease: seconds until another worker takes over from one that has vanished.
            - dead_letters: path of the dead-letter stream, by default `dead-letters/<name>`.
            - task_backend: alias of the backend of Django's tasks that runs the consumer. Empty: workers run it. None:
              as `CONSUMER_TASK_BACKEND` says.
            - task_queue: name of the queue for its tasks.

    Raises:
        TypeError, ValueError: an argument is wrong. An invalid pattern is reported by `manage.py check`.
    """

    def register(handler: Handler) -> Consumer:
        new = Consumer(name=name, pattern=pattern, handler=handler, **options)
        existing = _consumers.get(name)
        if existing is not None and not _is_same_function(existing.handler, handler):
            _duplicates.append(new)
        else:
            _consumers[name] = new
        return new

    return register


def _is_same_function(one: Any, other: Any) -> bool:
    """Return whether two functions are the same lines of one file, which was imported twice."""
    return one is other or (_place(one) is not None and _place(one) == _place(other))


def _place(function: Any) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)


def registered() -> list[Consumer]:
    """Return the consumers of the project."""
    return list(_consumers.values())


def of_stored_name(stored_name: str | None) -> Consumer | None:
    """Return the registered consumer whose subscription has a name, if there is one."""
    return next((consumer for consumer in registered() if consumer.stored_name == stored_name), None)


def duplicates() -> list[Consumer]:
    """Return the consumers whose name another one has registered before."""
    return list(_duplicates)


def find(names: Iterable[str]) -> list[Consumer]:
    """Return registered consumers by their names. No name: all.

    Raises:
        LookupError: there is no consumer of a name.
    """
    wanted = list(names)
    for name in wanted:
        if name not in _consumers:
            existing = ", ".join(sorted(_consumers)) or "none"
            raise LookupError(f"There is no consumer {name!r}. Registered are: {existing}.")
    return [_consumers[name] for name in wanted] if wanted else registered()
