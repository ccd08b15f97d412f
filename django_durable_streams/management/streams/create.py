"""`manage.py streams create`."""

from __future__ import annotations

from argparse import ArgumentParser

from ...api import stream_methods
from ...models import Stream
from .base import Console, Options, Subcommand, content_type, duration, moment
from .locations import path_argument


class Create(Subcommand):
    """Creates streams."""

    name = "create"
    help = "create streams"
    examples = """
streams create chat/42 --type json --ttl 7d
streams create logs/today --type text --if-missing
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", metavar="PATH", type=path_argument, help="path of the new stream")
        parser.add_argument(
            "--type",
            dest="content_type",
            type=content_type,
            default=content_type("bytes"),
            help="content type, or json, text or bytes (default: bytes)",
        )
        add_lifetime(parser)
        parser.add_argument("--closed", action="store_true", help="create it closed")
        parser.add_argument("--if-missing", action="store_true", help="accept a stream that is there and equal")

    def run(self, console: Console, options: Options) -> None:
        configuration = {name: options[name] for name in ("content_type", "ttl", "expires_at", "closed")}
        streams = Stream.objects.using(console.using)
        for path in options["paths"]:
            if options["if_missing"]:
                stream, created = streams.ensure(path, **configuration)
            else:
                stream, created = stream_methods.create(streams, console.using, path=path, **configuration), True
            console.write(
                f"{path} {'is created' if created else 'was there'}.",
                path=path,
                created=created,
                next_offset=stream.next_offset,
            )


def add_lifetime(parser: ArgumentParser) -> None:
    """Add the options for the end of a new stream."""
    parser.add_argument("--ttl", type=duration, help="time without use after which it expires, such as 90s, 2h or 7d")
    parser.add_argument("--expires-at", type=moment, help="time at which it expires, such as 2026-12-31T12:00:00Z")
