"""`manage.py streams append`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import msgspec
from django.core.management.base import CommandError

from ...api import transactions
from ...conf import config
from ...models import Stream
from ...protocol import content
from ...protocol.errors import DurableStreamsError, EmptyAppend, InvalidJSON, PayloadTooLarge
from ...protocol.producers import ProducerClaim, server_claim
from ...store.operations import Append as AppendOperation
from ...store.operations import Appended
from .base import Console, Options, Subcommand, content_type, counted, find_stream, input_is_terminal
from .locations import path_argument

READ_BYTES = 256 * 1024
"""Input that is read at once, and data of one append of raw input."""

LINES, NDJSON, RAW = "lines", "ndjson", "raw"

Encode = Callable[[bytes], bytes]


class Append(Subcommand):
    """Appends messages from the command line or from standard input, as they arrive."""

    name = "append"
    help = "append messages, or standard input"
    examples = """
streams append chat/42 '{"text": "hello"}'
tail -f app.log | streams append logs/app --create text
streams append events < events.ndjson
streams append events --producer import-7 < events.ndjson    repeat it after a crash: no message comes twice
streams append files/photo --raw < photo.jpg

Lines that arrive together are committed together. In a JSON stream, each line of the input is a message in JSON, unless
--lines makes a text of it. In a text stream, each line is a message with its line feed. Other streams get the input in
pieces, as with --raw. A message of the command line is JSON in a JSON stream, and a text in others.
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", metavar="PATH", type=path_argument, help="path of the stream")
        parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="a message (default: standard input)")
        formats = parser.add_mutually_exclusive_group()
        for name, text in (
            (LINES, "each line is a message of text"),
            (NDJSON, "each line is a message in JSON"),
            (RAW, "append the input as it is, in pieces"),
        ):
            formats.add_argument(f"--{name}", action="store_const", const=name, dest="format", help=text)
        parser.add_argument("--close", action="store_true", help="close the stream after the last message")
        parser.add_argument("--create", metavar="TYPE", type=content_type, help="create the stream if it is missing")
        parser.add_argument("--producer", metavar="NAME", help="a name under which the same input can be sent again")

    def run(self, console: Console, options: Options) -> None:
        if options["create"] is not None:
            stream = _ensure(options["path"], options["create"], console.using)
        else:
            stream = find_stream(options["path"], console.using)
        appender = _Appender(stream, console.using, options["producer"])
        if options["messages"]:
            encode = _json_line if content.is_json(stream.content_type) else _same
            appender.append([message.encode() for message in options["messages"]], encode)
        elif not (options["close"] and input_is_terminal()):
            _append_input(appender, options["format"] or _usual_format(stream.content_type))
        if options["close"]:
            stream.close()
        console.write(
            f"{counted(appender.sent, 'message', 'are')} sent to {stream.path}.",
            path=stream.path,
            messages=appender.sent,
            next_offset=appender.next_offset,
            closed=options["close"],
        )


class _Appender:
    """Appends messages to a stream, those of each call in one transaction."""

    def __init__(self, stream: Stream, using: str, producer: str | None) -> None:
        self._stream = stream
        self._using = using
        claim = server_claim((producer, 0, 0)) if producer is not None else None
        self._claims: Iterator[ProducerClaim] | None = (
            None if claim is None else (claim._replace(seq=number) for number in count())
        )
        self._limit = config().max_append_bytes
        self.is_json = content.is_json(stream.content_type)
        self.sent = 0
        self.next_offset = stream.next_offset

    def append(self, messages: list[bytes], encode: Encode) -> None:
        """Append messages.

        Raises:
            CommandError: a message is refused. No message of this call is appended.
        """
        operations = [
            self._operation(number, message, encode) for number, message in enumerate(messages, self.sent + 1)
        ]
        if operations:
            result: Appended | None = transactions.append_all([operations], self._using)
            self.sent += len(operations)
            self.next_offset = result.offset if result is not None else self.next_offset

    def _operation(self, number: int, message: bytes, encode: Encode) -> AppendOperation:
        stream = self._stream
        try:
            data = encode(message)
            if not data:
                raise EmptyAppend("It is empty.")
            if len(data) > self._limit:
                raise PayloadTooLarge(f"It has {len(data)} bytes, more than MAX_APPEND_BYTES ({self._limit}).")
        except DurableStreamsError as error:
            raise CommandError(f"Message {number} is refused: {error.detail}") from error
        claim = next(self._claims) if self._claims is not None else None
        return AppendOperation(stream.path, stream.content_type, data, producer=claim, stream_id=stream.pk)


def _ensure(path: str, kind: str, using: str) -> Stream:
    stream = Stream.objects.using(using).alive().filter(path=path).first()
    return stream or Stream.objects.using(using).ensure(path, content_type=kind)[0]


def _usual_format(kind: str) -> str:
    if content.is_json(kind):
        return NDJSON
    return LINES if content.holds_text(kind) else RAW


def _append_input(appender: _Appender, kind: str) -> None:
    source = getattr(sys.stdin, "buffer", None)
    if source is None:
        raise CommandError("There is no standard input.")
    if kind == RAW:
        _append_raw(appender, source)
        return
    encode: Encode = _same
    if kind == NDJSON and not appender.is_json:
        encode = _checked_json_line
    elif appender.is_json:
        encode = _json_line if kind == NDJSON else _json_text
    for lines in _lines(source):
        if kind == NDJSON:
            lines = [line for line in lines if line.strip()]
        appender.append(lines, encode)


def _append_raw(appender: _Appender, source: Any) -> None:
    if appender.is_json:  # one body, as of a request
        body = source.read(config().max_append_bytes + 1)
        appender.append([body] if body.strip() else [], _json_body)
        return
    while data := source.read1(READ_BYTES):
        appender.append([data], _same)


def _lines(source: Any) -> Iterator[list[bytes]]:
    """Yield the lines of the input that have arrived, with their line feeds. The last line may lack one."""
    rest = b""
    limit = config().max_append_bytes
    while data := source.read1(READ_BYTES):
        *lines, rest = _split(rest + data)
        if len(rest) > limit:
            raise CommandError(f"A line is longer than MAX_APPEND_BYTES ({limit}).")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _split(data: bytes) -> list[bytes]:
    """Return the lines of data, and the rest after the last line feed."""
    parts = data.split(b"\n")
    return [*(part + b"\n" for part in parts[:-1]), parts[-1]]


def _same(data: bytes) -> bytes:
    return data


def _json_body(body: bytes) -> bytes:
    return content.pack(content.JSON_CONTENT_TYPE, body)


def _json_line(line: bytes) -> bytes:
    """Return the stored form of one JSON value. As a body of its own, an array would be its elements."""
    data = _json_body(b"[%b]" % line.strip())
    if data.count(b"\n") != 1:
        raise InvalidJSON("It is not one JSON value.")
    return data


def _checked_json_line(line: bytes) -> bytes:
    _json_line(line)
    return line


def _json_text(line: bytes) -> bytes:
    try:
        return msgspec.json.encode(line.removesuffix(b"\n").removesuffix(b"\r").decode()) + b"\n"
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"It is not UTF-8: {error}.") from error
