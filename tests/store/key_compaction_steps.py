"""The steps of key compaction, one after the other and without a thread."""

from collections.abc import Iterable
from typing import Any

from django_durable_streams.models import Stream
from django_durable_streams.protocol.segments import Message
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.log_reader import PageRequest
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.upkeep import key_compaction
from django_durable_streams.store.upkeep.key_compaction import Job
from django_durable_streams.store.upkeep.key_passes import Pass

USING = "default"
SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def change(key: str, value: Any = None, kind: str = "row") -> dict[str, Any]:
    """Return a message that sets a key, or deletes it if there is no value."""
    if value is None:
        return {"type": kind, "key": key, "headers": {"operation": "delete"}}
    return {"type": kind, "key": key, "value": value, "headers": {"operation": "update"}}


def state(messages: Iterable[Any]) -> dict[tuple[str, str], Any]:
    """Return what a client has after some messages."""
    rows: dict[tuple[str, str], Any] = {}
    for message in messages:
        if isinstance(message, dict) and "key" in message:
            name = (message["type"], message["key"])
            if message["headers"]["operation"] == "delete":
                rows.pop(name, None)
            else:
                rows[name] = message["value"]
    return rows


def due(at: int) -> list[Job]:
    """Return the passes that are due at a time, and write the notes."""
    ids = list(Stream.objects.filter(path__isnull=False).values_list("id", flat=True))
    jobs, changed = key_compaction.plan(USING, ids, at)
    key_compaction.save_marks(USING, changed, at)
    return jobs


def compact_keys(at: int) -> int:
    """Make all passes that are due at a time, and return how many chunks were replaced."""
    replaced = 0
    for job in due(at):
        replaced += run(Pass(USING, claimed(job, at)), at)
    return replaced


def claimed(job: Job, at: int) -> Job:
    """Claim a pass, and return it with its number."""
    present = key_compaction.claim(USING, job, at)
    assert present is not None
    return present


def run(present: Pass, at: int) -> int:
    """Make a pass, and return how many chunks it has replaced."""
    replaced = 0
    while present.scan():
        pass
    while not present.is_complete:
        portion = present.find()
        assert portion is not None
        if portion.ids:
            assert key_compaction.replace(USING, present.job, portion)
            replaced += len(portion.ids)
    assert key_compaction.save(USING, present.job, present.notes(at))
    return replaced


def stored_bytes(stream: Stream) -> int:
    """Return the size of the data in the chunks of a stream."""
    return sum(len(data) for data in stream.chunks.values_list("data", flat=True))


def messages_of(stream: Stream, position: int = 0) -> list[Message]:
    """Return the messages of a stream after a position, page by page."""
    info = log_reader.find_ids([stream.pk], USING)[stream.pk]
    position = max(position, info.first_position)
    messages: list[Message] = []
    while position < info.tail:
        page = log_reader.pages([PageRequest(info, position, 300)], SegmentCache(0), USING)[stream.pk, position]
        assert page is not None
        messages += [message for message in page.messages("application/json") if message.end > position]
        position = page.end
    assert position == info.tail
    return messages
