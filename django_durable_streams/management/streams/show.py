"""`manage.py streams show`."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from ... import clock
from ...models import Chunk, Producer, Stream, SubscriptionLink
from ...store.upkeep import retention
from .base import Console, Options, Subcommand, add_paths, each_stream, table

_LABELS = {"size": "bytes appended", "kept": "bytes kept", "retention": "keeps"}
_UNITS = {"age": "seconds", "bytes": "bytes", "messages": "messages"}


class Show(Subcommand):
    """Shows all that is known of streams, without their data."""

    name = "show"
    help = "show the state of streams"
    examples = """
streams show chat/42
streams show 'chat/**' --json
"""

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_paths(parser)

    def run(self, console: Console, options: Options) -> None:
        for number, stream in enumerate(each_stream(options["paths"], console.using)):
            values = describe(stream, console.using)
            if console.is_json:
                console.json(values)
                continue
            has_rule = values.pop("has_retention_rule")
            lines = [
                (_LABELS.get(name, name.replace("_", " ")), _text(value, has_rule)) for name, value in values.items()
            ]
            lines = [(label, text) for label, text in lines if text]
            console.write("\n".join([*([""] if number else []), *table(lines)]))


def describe(stream: Stream, using: str) -> dict[str, Any]:
    """Return the state of a stream."""
    rule = retention.rule_of(stream.path or "", retention.row_of(stream.pk, using))
    source = stream.source.path if stream.source_id is not None and stream.source is not None else None
    return {
        "path": stream.path,
        "content_type": stream.content_type,
        "next_offset": stream.next_offset,
        "first_offset": stream.offset_at(stream.first_position),
        "size": stream.tail_position,
        "kept": stream.tail_position - stream.first_position,
        "retention": stream.retention._asdict(),
        "has_retention_rule": rule is not None,
        "closed": stream.closed,
        "closed_by": stream.closing_request or None,
        "last_seq": stream.last_seq,
        "ttl": stream.ttl,
        "expires_at": _utc(stream.expires_at),
        "ends_at": _utc(stream.deadline),
        "created_at": _utc(stream.created_at),
        "appended_at": _utc(stream.appended_at),
        "forked_from": source,
        "fork_offset": None if stream.fork_position is None else stream.offset_at(stream.fork_position),
        "forks": stream.forks.using(using).count(),
        "producers": Producer.objects.using(using).filter(stream=stream).count(),
        "subscriptions": SubscriptionLink.objects.using(using).filter(stream=stream).count(),
        "chunks": Chunk.objects.using(using).filter(stream=stream).count(),
    }


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else clock.from_project(value).astimezone(UTC)


def _text(value: Any, has_rule: bool) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, dict):  # the rules of retention
        limits = [f"{limit:,} {_UNITS[name]}" for name, limit in value.items() if limit is not None]
        if limits:
            whole = ", whole appends" if value.get("messages") is not None else ""
            return "the newest " + ", ".join(limits) + whole
        return "everything, by a rule of retention" if has_rule else "everything, as it has no rule of retention"
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
