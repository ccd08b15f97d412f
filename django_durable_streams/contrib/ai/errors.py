"""The errors of AI answers."""

from __future__ import annotations

from django.core.exceptions import BadRequest

from ...protocol.errors import InvalidPath


class InvalidChatId(InvalidPath, BadRequest):
    """No chat can have this id. Django answers it with 400, in a view of the project too."""

    title = "Invalid id of a chat"


class AnswerRunning(Exception):
    """The chat has an active run already."""


class AnswerError(Exception):
    """A source failed, and the readers of the answer may know why: they see this message.

    The message of any other exception goes to the log only.
    """


class NoSuchMessage(ValueError):
    """The chat has no message with this id."""


class UnfinishedAnswer(ValueError):
    """The branch of a chat would have an answer that is being written."""
