"""The bodies of chat requests, as clients send them, and what they mean. Knows no table and no response."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ....protocol.structs import examine
from ..events import DataPart, FilePart, Message, Part, ReasoningPart, TextPart, ToolPart

MAX_ID_LENGTH = 128
ID_PATTERN = rf"^[A-Za-z0-9_~:@][A-Za-z0-9_.~:@-]{{0,{MAX_ID_LENGTH - 1}}}\Z"
"""Ids of chats: parts of a path that mean nothing else, in a URL or in a pattern of paths."""

ChatId = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Role = Literal["user", "assistant"]

MAX_NESTING = 100
"""Levels of a JSON value in a message. Whoever reads the chat later may have less room for them than this request."""

MAX_BODY_NESTING = MAX_NESTING + 10
"""Levels of a whole body. The project may store it as an argument of the source."""

T = TypeVar("T")


class InvalidRequest(Exception):
    """The request cannot be understood. The message names the problem."""


def parse(body: bytes, kind: type[T]) -> T:
    """Return a body as a value of a type.

    Raises:
        InvalidRequest: the body is no JSON, or lacks something.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The body is not a chat request: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def checked_id(chat_id: str) -> str:
    """Return the id of a chat.

    Raises:
        InvalidRequest: the id is invalid.
    """
    try:
        return msgspec.convert(chat_id, ChatId)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"The id of a chat has 1 to {MAX_ID_LENGTH} letters, digits and `_.~:@-`, and does not begin with a dot or "
            "a hyphen."
        ) from error


class ClientMessage(msgspec.Struct):
    """A message as the AI SDK and TanStack AI send it. `content` is what AG-UI has instead of parts."""

    id: MessageId
    role: Role
    parts: list[dict[str, Any]] = []

    def message(self) -> Message:
        """Return the message for the chat's stream.

        Raises:
            InvalidRequest: a part is invalid.
        """
        parts = [part for value in self.parts if (part := _part(value)) is not None]
        return Message(self.id, self.role, parts)


class VercelBody(msgspec.Struct):
    """What `DefaultChatTransport` and `createDurableChatTransport` send."""

    id: ChatId
    messages: Annotated[list[ClientMessage], msgspec.Meta(min_length=1)]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: str | None = None

    @property
    def is_rewind(self) -> bool:
        """Whether what follows the last message does not count any more."""
        return self.trigger == "regenerate-message" or self.messageId is not None


class TanStackBody(msgspec.Struct):
    """What `durableStreamConnection` sends."""

    messages: Annotated[list[ClientMessage], msgspec.Meta(min_length=1)]
    data: Any = None


class AGUIMessage(msgspec.Struct):
    """A message as AG-UI has it."""

    id: MessageId
    role: str
    content: Any = None

    def message(self) -> Message:
        """Return the message for the chat's stream.

        Raises:
            InvalidRequest: the content is neither text nor a list of parts.
        """
        role: Role = "assistant" if self.role == "assistant" else "user"
        if self.content is None or isinstance(self.content, str):
            return Message(self.id, role, [TextPart(self.content)] if self.content else [])
        if not isinstance(self.content, list):
            raise InvalidRequest(f"The content of message {self.id!r} is neither text nor a list.")
        return Message(self.id, role, [part for item in self.content if (part := _content(item)) is not None])


class AGUIBody(msgspec.Struct, rename="camel"):
    """`RunAgentInput` of AG-UI."""

    thread_id: ChatId
    run_id: MessageId
    messages: Annotated[list[AGUIMessage], msgspec.Meta(min_length=1)]


class BranchBody(msgspec.Struct):
    """What a page sends for a branch: the first message that it leaves out, and the id that the new chat shall have."""

    before: MessageId | None = None
    id: ChatId | None = None


def _part(value: dict[str, Any]) -> Part | None:
    """Return a part of a message, or None for one that the chat does not keep.

    Raises:
        InvalidRequest: the part lacks something.
    """
    kind = value.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest("A part of a message has no type.")
    try:
        if kind == "text":
            return TextPart(msgspec.convert(value.get("text", value.get("content")), str))
        if kind == "reasoning":
            return ReasoningPart(msgspec.convert(value.get("text", ""), str))
        if kind == "file":
            return FilePart(
                msgspec.convert(value.get("url"), str),
                msgspec.convert(value.get("mediaType", ""), str),
                msgspec.convert(value.get("filename") or "", str),
            )
        if kind == "dynamic-tool" or kind.startswith("tool-"):
            return _tool_part(kind, value)
        if kind.startswith("data-") and len(kind) > len("data-"):
            id = msgspec.convert(value.get("id") or "", str)
            return DataPart(kind.removeprefix("data-"), _checked(value.get("data")), id)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"A part of type {kind!r} is invalid: {error}.") from error
    return None


def _tool_part(kind: str, value: dict[str, Any]) -> Part | None:
    if "toolCallId" not in value:  # another client's kind of part
        return None
    name = value.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
    return ToolPart(
        msgspec.convert(value["toolCallId"], str),
        msgspec.convert(name, str),
        _checked(value.get("input")),
        _checked(value.get("output")),
        msgspec.convert(value.get("errorText") or "", str),
        value.get("state") in ("output-available", "output-error"),
    )


def parse_whole(body: bytes) -> Any:
    """Return a whole body, with the fields of the project.

    Raises:
        InvalidRequest: the body is no JSON, or nested too deeply. This is stricter than `parse`, which skips fields.
    """
    return _checked(parse(body, object), MAX_BODY_NESTING, "The body") if body else None


def _checked(value: Any, most: int = MAX_NESTING, name: str = "A part of a message") -> Any:
    """Return a JSON value that is not nested too deeply.

    Raises:
        InvalidRequest: it is.
    """
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise InvalidRequest(f"{name} is nested more than {most} levels deep.")


def _content(item: object) -> Part | None:
    if not isinstance(item, dict):
        raise InvalidRequest("A part of a message's content is no object.")
    try:
        if item.get("type") == "text":
            return TextPart(msgspec.convert(item.get("text"), str))
        if item.get("url") is not None:
            return FilePart(
                msgspec.convert(item["url"], str),
                msgspec.convert(item.get("mimeType") or "", str),
                msgspec.convert(item.get("filename") or "", str),
            )
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"A part of a message's content is invalid: {error}.") from error
    return None


examine(globals())
