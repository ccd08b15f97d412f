"""The tables of AI answers: a chat on a stream, and the runs that write its answers.

The messages themselves are events in the chat's stream. A row of a run says who writes the answer now, and until when.
Functions in `rows` change these rows; the methods here are for reading, and for the page of a chat.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ...api import transactions
from ...models import Stream
from ...models.fields import ExactCharField, InstantField, JSONTextField
from .errors import NoSuchMessage, UnfinishedAnswer
from .events import AnyEvent, decode, ends
from .history import ChatMessage, ChatSnapshot, History, messages_of
from .positions import offset_after
from .wakeups import tell_runners

MAX_OWNER_LENGTH = 255


def database() -> str:
    """Return the alias of the database of chats and runs: that of the streams."""
    return router.db_for_write(Stream)


class Chat(models.Model):
    """A chat: a JSON stream with the messages of its users and the answers."""

    # Without a constraint, which the database would check for each of the streams that it deletes. Django cascades.
    stream = models.OneToOneField(
        Stream, verbose_name=_("stream"), on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    owner = models.CharField(
        _("owner"),
        max_length=MAX_OWNER_LENGTH,
        blank=True,
        default="",
        db_index=True,
        help_text="Primary key of the user who began the chat, as text. Empty: nobody in particular.",
    )
    branched_from = models.ForeignKey(
        "self",
        verbose_name=_("branched from"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="branches",
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("chat")
        verbose_name_plural = _("chats")

    def __str__(self) -> str:
        return self.path

    @property
    def path(self) -> str:
        """The path of the chat's stream."""
        return self.stream.path or ""

    @classmethod
    def at(cls, path: str) -> Chat | None:
        """Return the chat at a path, or None."""
        alive = Stream.objects.using(database()).alive().filter(path=path)
        return cls.objects.using(database()).select_related("stream").filter(stream__in=alive).first()

    def messages(self) -> list[ChatMessage]:
        """Return the messages of the chat as they are now, in order, for the next request to a model or for a page.

        Raises:
            StreamNotFound: the chat's stream was deleted.
        """
        return messages_of(decode(value) for value in self.stream.read())

    def snapshot(self) -> ChatSnapshot:
        """Return the messages with the offset after them, for a page that shows the chat and follows it from there.

        Raises:
            StreamNotFound: the chat's stream was deleted.
        """
        history, next_offset = History(), "-1"
        for page in self.stream.tail(timeout=0):
            for value in page:
                history.add(decode(value))
            next_offset = page.next_offset
        return ChatSnapshot(history.messages, next_offset)

    async def asnapshot(self) -> ChatSnapshot:
        """The same as `snapshot`, for committed messages only."""
        history, next_offset = History(), "-1"
        async with aclosing(self.stream.atail(timeout=0)) as pages:  # type: ignore[type-var]
            async for page in pages:
                for value in page:
                    history.add(decode(value))
                next_offset = page.next_offset
        return ChatSnapshot(history.messages, next_offset)

    async def amessages(self) -> list[ChatMessage]:
        """The same as `messages`, for committed messages only."""
        history = History()
        async for event in committed_events(self.stream):
            history.add(event)
        return history.messages

    def active_run(self) -> Run | None:
        """Return the run that writes an answer now, or waits for a worker. None: there is none."""
        return Run.objects.using(database()).select_related("chat__stream").filter(active_chat=self).first()

    def branch(self, path: str, *, before: str | None = None, owner: str | None = None) -> Chat:
        """Create a chat that begins with the messages of this one, without a copy of them, and return it.

        Args:
            path: the path of the new chat.
            before: the id of the first message that the branch leaves out. None: the branch has all messages.
            owner: the owner of the branch. None: the owner of this chat.

        Raises:
            NoSuchMessage: there is no message with this id.
            UnfinishedAnswer: an answer is being written, and the branch would have it.
            StreamExists: the path is taken.
        """
        history = History()
        for value in self.stream.read():
            history.add(decode(value))
        count = history.event_count
        if before is not None:
            message = history.find(before)
            if message is None:
                raise NoSuchMessage(f"The chat has no message {before!r}.")
            count = message.event
        elif any(message.status == "streaming" for message in history.messages):
            raise UnfinishedAnswer("An answer is being written. Name a message before which the branch ends, or wait.")
        owner = self.owner if owner is None else owner
        with transactions.atomic(database()):
            fork = self.stream.fork(path, offset=offset_after(self.stream, count, database()))
            return type(self).objects.using(database()).create(stream=fork, owner=owner, branched_from=self)

    async def abranch(self, path: str, **options: Any) -> Chat:
        """The same as `branch`."""
        return await sync_to_async(self.branch)(path, **options)


class Run(models.Model):
    """One answer: who writes it, and how it has ended.

    `active_chat` is unique, so a chat has one active run at most, in every database. A run is active while that is set.
    The `holder` may write until `lease_until`, and renews that. `epoch` is the epoch of the run's producer on the
    stream: a holder that has lost the run is fenced there, whatever it believes.
    """

    class State(models.TextChoices):
        """The states of a run."""

        QUEUED = "queued", _("waits for a worker")
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        STOPPED = "stopped", _("stopped")
        FAILED = "failed", _("failed")

    class OnLost(models.TextChoices):
        """What happens to a run whose worker has vanished."""

        FAIL = "fail", _("it ends as failed")
        CONTINUE = "continue", _("another worker continues it")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    chat = models.ForeignKey(Chat, verbose_name=_("chat"), on_delete=models.CASCADE, related_name="runs")
    active_chat = models.OneToOneField(
        Chat, verbose_name=_("active in"), null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.QUEUED)
    message_id = ExactCharField(_("message"), max_length=255, help_text="Id of the answer's message.")
    turn_id = ExactCharField(
        _("answers"), max_length=255, blank=True, default="", help_text="Id of the user's message."
    )
    start_offset = models.CharField(_("start"), max_length=64, help_text="Offset before the first event of the run.")
    owner = models.CharField(_("owner"), max_length=MAX_OWNER_LENGTH, blank=True, default="")
    source = models.CharField(_("source"), max_length=255, blank=True, default="", help_text="Dotted path.")
    arguments = JSONTextField(_("arguments"), default=dict, blank=True)
    on_lost = models.CharField(_("if its worker vanishes"), max_length=16, choices=OnLost.choices, default=OnLost.FAIL)
    stop_requested = models.BooleanField(_("stop requested"), default=False)
    holder = models.CharField(_("holder"), max_length=64, blank=True, default="")
    epoch = models.BigIntegerField(_("epoch"), default=0)
    lease_until = InstantField(_("lease until"), null=True, blank=True, db_index=True)
    written = models.PositiveBigIntegerField(_("written"), default=0, help_text="Events at the last takeover.")
    attempts = models.PositiveIntegerField(_("attempts"), default=0, help_text="Takeovers without a new event.")
    error = models.TextField(_("error"), blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)

    joined = False
    """Whether `start_answer` has returned a run that was active already."""

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        indexes = [
            models.Index(fields=["holder", "active_chat"], name="durable_ai_run_holder"),
            models.Index(fields=["chat", "turn_id"], name="durable_ai_run_turn"),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.state})"

    @property
    def is_active(self) -> bool:
        """Whether the run had not ended when this instance was loaded."""
        return self.state in (self.State.QUEUED, self.State.RUNNING)

    @property
    def producer(self) -> str:
        """The name of the run's producer on the stream."""
        return f"answer {self.pk}"

    def stop(self) -> bool:
        """Ask for the end of the run, in whatever process it is. Return whether it was active.

        The text until then stays. Inside a transaction, the request counts from its commit on.
        """
        rows = Run.objects.using(database()).filter(pk=self.pk, active_chat__isnull=False)
        is_asked = bool(rows.update(stop_requested=True))
        if is_asked:
            tell_runners(database())
        return is_asked

    async def astop(self) -> bool:
        """The same as `stop`."""
        return await sync_to_async(self.stop)()

    async def aevents(self) -> AsyncIterator[AnyEvent]:
        """Yield the events of the run, from its start to its end, as they are committed.

        Wrap it in `contextlib.aclosing` if the loop may be left before its end. It also ends when the chat is deleted,
        and when the process is asked to end.
        """
        run = str(self.pk)
        async with aclosing(self.chat.stream.atail(self.start_offset)) as pages:  # type: ignore[type-var]
            async for page in pages:
                for value in page:
                    event = decode(value)
                    if event is not None:
                        yield event
                    if ends(event, run):
                        return

    def events(self) -> Iterator[AnyEvent]:
        """The same as `aevents`, for synchronous code outside of transactions."""
        run = str(self.pk)
        for page in self.chat.stream.tail(self.start_offset):
            for value in page:
                event = decode(value)
                if event is not None:
                    yield event
                if ends(event, run):
                    return

    async def await_end(self) -> Self:
        """Wait for the end of the run, and load its row anew."""
        async with aclosing(self.aevents()) as events:  # type: ignore[type-var]
            async for _event in events:
                pass
        await sync_to_async(self.refresh_from_db)(using=database())
        return self


async def committed_events(stream: Stream, offset: str = "-1") -> AsyncIterator[AnyEvent | None]:
    """Yield the events of a chat's stream up to its present end."""
    async with aclosing(stream.atail(offset, timeout=0)) as pages:  # type: ignore[type-var]
        async for page in pages:
            for value in page:
                yield decode(value)
