"""`manage.py streams list`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from ...protocol.listings import MAX_LIMIT, ListingQuery
from ...server.listing import describe
from ...store.read import listing
from .base import Console, Options, Subcommand, is_pattern, size_text, table, wildcard_hint
from .locations import path_argument

STREAMS_PER_QUERY = 4 * MAX_LIMIT
"""With fewer, the making of the queries would be a tenth of the time."""

_COLUMNS = ("path", "content_type", "tail_position", "closed", "created_at", "appended_at")

_ENCODER = msgspec.json.Encoder()


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
        query = ListingQuery.of(**texts)._replace(limit=STREAMS_PER_QUERY)
        using = console.using
        time = listing.time_reader(using)
        is_empty = True
        for rows in listing.pages(query, using) if console.is_json else listing.rows(query, _COLUMNS, using):
            is_empty = is_empty and not rows
            if rest is not None:
                rows = rows[: max(rest, 0)]
                rest -= len(rows)
            if console.is_json:
                console.write_lines([_ENCODER.encode_lines([*map(describe, rows)]).decode()])
            else:
                console.write_lines(table([_cells(row, time) for row in rows]))
            if rest is not None and rest <= 0:
                return
        if is_empty and (hint := wildcard_hint(prefix)):
            console.note(f"No path begins with {prefix}.{hint}")


def _cells(row: tuple[Any, ...], time: Callable[[Any], datetime]) -> tuple[str, ...]:
    path, content_type, size, closed, created_at, appended_at = row
    used_at = time(appended_at or created_at).isoformat(" ")[:19]
    return path, content_type, size_text(size), "closed" if closed else "open", used_at
