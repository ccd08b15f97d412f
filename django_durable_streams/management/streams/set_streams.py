"""`manage.py streams set`."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import CommandError

from .base import Console, Options, Subcommand, add_paths, duration, each_stream
from .create import add_lifetime

_RULES = ("age", "bytes", "messages")


class SetStreams(Subcommand):
    """Changes the lifetime and the retention of streams."""

    name = "set"
    help = "change the lifetime of streams, and what is kept of them"
    examples = """
streams set chat/42 --ttl 7d
streams set chat/42 --no-end
streams set 'logs/**' --keep-age 30d --keep-bytes 100000000
streams set logs/audit --keep-all
streams set logs/audit --keep-default
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser)
        add_lifetime(parser)
        parser.add_argument("--no-end", action="store_true", help="let it live until it is deleted")
        parser.add_argument("--keep-age", dest="age", type=duration, help="keep data for this time, such as 90s or 7d")
        parser.add_argument("--keep-bytes", dest="bytes", type=int, help="keep this many bytes")
        parser.add_argument("--keep-messages", dest="messages", type=int, help="keep this many messages")
        parser.add_argument("--keep-all", action="store_true", help="keep all data")
        parser.add_argument("--keep-default", action="store_true", help="keep what the setting RETENTION says")

    def run(self, console: Console, options: Options) -> None:
        rules = {name: options[name] for name in _RULES if options[name] is not None}
        lifetime = {name: options[name] for name in ("ttl", "expires_at") if options[name] is not None}
        if bool(lifetime) and options["no_end"]:
            raise CommandError("Give --ttl, --expires-at or --no-end, and not several of them.")
        if bool(rules) + options["keep_all"] + options["keep_default"] > 1:
            raise CommandError("Give rules, --keep-all or --keep-default, and not several of them.")
        changes_end, changes_rules = lifetime or options["no_end"], rules or options["keep_all"]
        if not (changes_end or changes_rules or options["keep_default"]):
            raise CommandError("Say what to change, for example by --ttl 7d or --keep-age 30d.")
        for stream in each_stream(options["paths"], console.using):
            if changes_end:
                stream.set_lifetime(**lifetime)
            if changes_rules:
                stream.retain(**rules)
            elif options["keep_default"]:
                stream.reset_retention()
            console.write(
                f"{stream.path} is changed.", path=stream.path, ttl=stream.ttl, retention=stream.retention._asdict()
            )
