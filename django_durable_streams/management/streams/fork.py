"""`manage.py streams fork`."""

from __future__ import annotations

from argparse import ArgumentParser

from .base import Console, Options, Subcommand, find_stream
from .create import add_lifetime
from .locations import path_argument


class Fork(Subcommand):
    """Creates a stream that begins with the data of another one."""

    name = "fork"
    help = "create a stream that begins with the data of another one"
    examples = """
streams fork chat/42 chat/42-again
streams fork chat/42 chat/42-first --offset 0000000000000000_0000000000000000 --sub-offset 1
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", type=path_argument, help="path of the stream with the data")
        parser.add_argument("path", metavar="PATH", type=path_argument, help="path of the new stream")
        parser.add_argument("--offset", help="offset of the source at which to cut (default: its tail)")
        parser.add_argument("--sub-offset", type=int, default=0, help="messages (JSON) or bytes after the offset")
        add_lifetime(parser)

    def run(self, console: Console, options: Options) -> None:
        source = find_stream(options["source"], console.using)
        names = ("offset", "sub_offset", "ttl", "expires_at")
        stream = source.fork(options["path"], **{name: options[name] for name in names})
        console.write(
            f"{stream.path} is created, with {stream.tail_position} bytes of {source.path}.",
            path=stream.path,
            source=source.path,
            next_offset=stream.next_offset,
        )
