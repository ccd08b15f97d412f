"""`manage.py streams tail`."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Sequence

from asgiref.sync import sync_to_async

from ...api import transactions
from ...models import Stream
from ...protocol import arguments
from ...protocol.errors import OffsetTrimmed, StreamGone, StreamNotFound
from ...protocol.globs import glob
from ...protocol.listings import MAX_LIMIT, ListingQuery
from ...store.read import browsing, lineage, listing
from ...store.read.listing import StreamKey
from .base import Console, Options, Subcommand, add_paths, each_stream, is_pattern
from .read import Printer

LOOK_SECONDS = 2.0
"""How often new streams are looked for that match a pattern."""


class TailStreams(Subcommand):
    """Prints the last messages of streams, and follows them."""

    name = "tail"
    help = "print the last messages of streams, and follow them with -f"
    examples = """
streams tail chat/42
streams tail -f chat/42 -n 0
streams tail -f 'chat/**' --json
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser)
        parser.add_argument("-f", "--follow", action="store_true", help="go on with new messages, until Ctrl-C")
        parser.add_argument("-n", type=int, default=10, dest="count", help="number of messages (default: 10)")

    def run(self, console: Console, options: Options) -> None:
        paths, using = options["paths"], console.using
        printer = Printer(console, with_headings=len(paths) > 1 or is_pattern(paths[0]))
        ends: dict[str, tuple[int, str]] = {}
        for stream in each_stream(paths, using):
            info = transactions.find(stream.path, using, stream.pk)
            if options["count"] > 0:
                messages, _has_earlier = browsing.last(info, info.tail, count=options["count"], using=using)
                printer.print_messages(info, messages)
            if options["follow"]:
                ends[info.path] = info.id, lineage.around(info, using, info.tail, info.tail).token(info.tail)
        console.flush()
        if options["follow"]:
            followers = _Followers(console, printer)
            try:
                asyncio.run(followers.follow(ends, [path for path in paths if is_pattern(path)]))
            except ExceptionGroup as group:  # of the tasks: the command prints one line, which the first one explains
                raise group.exceptions[0] from None


class _Followers:
    """Follows streams, each by a task."""

    def __init__(self, console: Console, printer: Printer) -> None:
        self._console = console
        self._printer = printer
        self._using = console.using

    async def follow(self, ends: dict[str, tuple[int, str]], patterns: Sequence[str]) -> None:
        """Print what is appended, until all streams have ended. With patterns, new streams may come."""
        async with asyncio.TaskGroup() as group:
            for path, (stream_id, offset) in ends.items():
                group.create_task(self._follow_one(path, stream_id, offset))
            known_ids = {stream_id for stream_id, _ in ends.values()}
            while patterns:
                await asyncio.sleep(LOOK_SECONDS)
                for path, stream_id in await sync_to_async(self._list)(patterns):
                    if stream_id not in known_ids:
                        known_ids.add(stream_id)
                        group.create_task(self._follow_one(path, stream_id, "-1"))

    def _list(self, patterns: Sequence[str]) -> list[StreamKey]:
        queries = [ListingQuery(pattern=glob(pattern), limit=MAX_LIMIT) for pattern in patterns]
        return [key for query in queries for keys in listing.keys(query, self._using) for key in keys]

    async def _follow_one(self, path: str, stream_id: int, offset: str) -> None:
        following: str | None = offset
        while following is not None:
            following = await self._follow_from(path, stream_id, following)

    async def _follow_from(self, path: str, stream_id: int, offset: str) -> str | None:
        """Follow a stream to its end. Return the offset to go on from instead, if data was trimmed."""
        try:
            stream = await Stream.objects.using(self._using).aget(pk=stream_id, path=path)
            async for page in stream.atail(offset):
                # The stored bytes, and not the values of the page: numbers would be written in another way.
                if page.messages:
                    await sync_to_async(self._print)(path, stream_id, offset)
                    offset = page.next_offset
        except OffsetTrimmed as error:
            self._console.note(f"{path} was trimmed. It goes on at {error.first_offset}.")
            return error.first_offset
        except (Stream.DoesNotExist, StreamNotFound, StreamGone):
            pass
        return None

    def _print(self, path: str, stream_id: int, offset: str) -> None:
        info = transactions.find(path, self._using, stream_id)
        info, position = lineage.locate(info, arguments.offset(offset), self._using)
        self._printer.print_from(info, position)
