"""`manage.py streams read`, and how messages are printed."""

from __future__ import annotations

from argparse import ArgumentParser
from base64 import b64encode
from collections.abc import Iterator

import msgspec

from ...api import transactions
from ...conf import config
from ...protocol import arguments, content
from ...protocol.segments import Message, Segment
from ...runtime.printable import printable
from ...store.read import lineage, log_reader
from ...store.read.segment_cache import SegmentCache
from ...store.stream_info import StreamInfo
from .base import Console, Options, Subcommand, add_paths, each_stream, is_pattern


class Read(Subcommand):
    """Prints the data of streams as it is stored."""

    name = "read"
    help = "print the data of streams: JSON messages a line each, other data as it is"
    examples = """
streams read chat/42
streams read chat/42 --offset 1764369600000000_0000000000000011
streams read 'chat/**' --json | jq .message
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser)
        parser.add_argument("--offset", default="-1", help="where to begin: an offset, or -1 (default: -1)")

    def run(self, console: Console, options: Options) -> None:
        start = arguments.offset(options["offset"])
        many = len(options["paths"]) > 1 or is_pattern(options["paths"][0])
        printer = Printer(console, with_headings=many)
        for stream in each_stream(options["paths"], console.using):
            info, position = lineage.locate(
                transactions.find(stream.path, console.using, stream.pk), start, console.using
            )
            printer.print_from(info, position)


class Printer:
    """Prints data of streams, with a heading when another stream follows.

    Args:
        console: where to.
        with_headings: whether several streams may follow each other.
    """

    def __init__(self, console: Console, *, with_headings: bool) -> None:
        self._console = console
        self._with_headings = with_headings and not console.is_json
        self._path: str | None = None
        self._is_at_line_start = True

    def print_from(self, info: StreamInfo, position: int) -> int:
        """Print the data from a position to the tail of a stream, and return the tail."""
        for segment in segments(info, position, self._console.using):
            if self._console.is_json:
                self.print_messages(info, list(segment.messages(info.content_type)))
            else:
                self._print(info.path, segment.data)
        self._console.flush()
        return info.tail

    def print_messages(self, info: StreamInfo, messages: list[Message]) -> None:
        """Print messages that have been read."""
        if not messages:
            return
        if not self._console.is_json:
            line_end = b"\n" if content.is_json(info.content_type) else b""
            self._print(info.path, b"".join(message.data + line_end for message in messages))
            return
        # The ends of the messages of one page lie in the same entries of the lineage, or are looked up here.
        around = lineage.around(info, self._console.using, messages[0].end, messages[-1].end)
        for message in messages:
            self._console.json({"path": info.path, "offset": around.token(message.end), **_value(info, message.data)})

    def _print(self, path: str, data: bytes) -> None:
        if self._with_headings and path != self._path:
            line_end = "" if self._is_at_line_start else "\n"
            empty_line = "" if self._path is None else "\n"
            self._console.write_bytes(f"{line_end}{empty_line}==> {printable(path)} <==\n".encode())
        self._path = path
        self._is_at_line_start = data.endswith(b"\n")
        self._console.write_bytes(data)


def segments(info: StreamInfo, position: int, using: str) -> Iterator[Segment]:
    """Yield the data of a stream from a position to its tail, page by page.

    Raises:
        StreamNotFound, StreamGone: the stream was deleted meanwhile.
        OffsetTrimmed: data after the position was trimmed, before or meanwhile.
        ServiceUnavailable: its data is damaged.
    """
    lineage.check_retained(info, position, using)
    while position < info.tail:
        request = log_reader.PageRequest(info, position, config().page_bytes)
        segment = log_reader.pages([request], SegmentCache(0), using)[info.id, position]
        if segment is None:
            transactions.find(info.path, using, info.id)
            raise log_reader.explain_missing(info, position, using)
        segment = segment.clip(info.tail)
        # A read returns an append whole. In JSON mode, the offset of a message inside is a place to go on from, too.
        before = segment.index(position)
        if before > 0 and content.is_json(info.content_type) and segment.data[before - 1 : before] == b"\n":
            segment = segment.beginning(position)
        yield segment
        position = segment.end


def _value(info: StreamInfo, data: bytes) -> dict[str, object]:
    if content.is_json(info.content_type):
        return {"message": msgspec.Raw(data)}
    if content.holds_text(info.content_type):
        try:
            return {"message": data.decode()}
        except UnicodeDecodeError:  # an append that ends inside a character
            pass
    return {"data": b64encode(data).decode()}
