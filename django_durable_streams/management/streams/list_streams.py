"""`manage.py streams list`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.template.defaultfilters import filesizeformat

from ...protocol.listings import MAX_LIMIT, ListingQuery
from ...server.listing import describe
from ...store.read import listing
from ...store.read.listing import ListedStream
from .base import Console, Options, Subcommand, is_pattern, path_argument, table


class ListStreams(Subcommand):
    """Lists streams, in constant memory however many there are."""

    name = "list"
    help = "list streams in the order of their paths"
    examples = """
streams list                    all streams
streams list chat/              paths that begin with chat/
streams list 'chat/*/typing'    paths that match a pattern: * is one segment, ** any number
streams list --json | jq -r 'select(.closed).path'
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "prefix",
            nargs="?",
            default="",
            metavar="PREFIX",
            type=path_argument,
            help="text with which the paths begin, or a pattern",
        )
        parser.add_argument("--limit", type=int, help="the largest number of streams")

    def run(self, console: Console, options: Options) -> None:
        prefix, rest = options["prefix"], options["limit"]
        texts = {"pattern": prefix} if is_pattern(prefix) else {"prefix": prefix}
        for streams in listing.pages(ListingQuery.of(limit=MAX_LIMIT, **texts), console.using):
            if rest is not None:
                streams = streams[: max(rest, 0)]
                rest -= len(streams)
            if console.is_json:
                for stream in streams:
                    console.json(describe(stream))
            elif streams:
                for line in table(map(_columns, streams)):
                    console.write(line)
            if rest is not None and rest <= 0:
                return


def _columns(stream: ListedStream) -> list[str]:
    used_at = stream.appended_at or stream.created_at
    size = str(filesizeformat(stream.size)).replace("\N{NO-BREAK SPACE}", " ")
    state = "closed" if stream.closed else "open"
    return [stream.path, stream.content_type, size, state, used_at.strftime("%Y-%m-%d %H:%M:%S")]
