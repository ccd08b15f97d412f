"""Appends, trims, forks, deletes, compactions of chunks and of keys, beside a plain model in memory. On every database.

A read returns messages of the model in order, without some that later ones replace. So at the tail, a client has the
state of the model, wherever it began, or it is refused with the offset of the first data that is left.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import OffsetOutOfRange, OffsetTrimmed
from django_durable_streams.store.operations import Append
from django_durable_streams.store.read import log_reader
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.upkeep import compaction, key_compaction, key_passes, removal
from django_durable_streams.store.write import group_commit
from tests.examples import enough
from tests.overriding import override_streams
from tests.store.key_compaction_steps import (
    SECOND,
    START,
    USING,
    change,
    compact_keys,
    due,
    messages_of,
    state,
)
from tests.store.trimming_steps import apply_rules, drop

JSON = "application/json"
HOUR = 3600 * SECOND
RULES = {"s/**": {"delay": 0, "tombstones": 3600}}

Entry = tuple[Any, int]
"""A message, and the position after it."""


@dataclass
class ModelStream:
    entries: list[Entry] = field(default_factory=list)
    tail: int = 0
    first: int = 0
    cut: int = 0
    """Up to here a fork has what its source had when the fork was made, and keeps it."""

    def after(self, position: int) -> list[Entry]:
        return [entry for entry in self.entries if entry[1] > position]


def is_part(few: Sequence[Any], many: Sequence[Any]) -> bool:
    """Return whether some items are among others, in the same order."""
    following = iter(many)
    return all(any(one == other for other in following) for one in few)


def entries_of(stream: Stream, position: int = 0) -> list[Entry]:
    return [(json.loads(message.data), message.end) for message in messages_of(stream, position)]


class World:
    """The streams, their models, and the time."""

    def __init__(self) -> None:
        self.models: dict[str, ModelStream] = {}
        self.made = 0
        self.now = START
        self.cache = SegmentCache(1 << 20)
        """That of a process. Its segments are of any time since `cached_since`."""
        self.cached_since = START

    def step(self, name: str, which: int, number: int) -> None:
        if name == "create" or not self.models:
            self.made += 1
            self.models[f"s/{self.made}"] = ModelStream()
            Stream.objects.create(path=f"s/{self.made}", content_type=JSON)
            return
        path = [*self.models][which % len(self.models)]
        getattr(self, name)(path, self.models[path], number)

    def append(self, path: str, model: ModelStream, number: int) -> None:
        """Append messages one by one, or several as one append, of which some may be removed later."""
        messages = [
            {"n": number} if one % 5 == 4 else change(str(one % 3), None if (number + one) % 4 == 0 else one)
            for one in range(number, number + number % 4 + 1)
        ]
        lines = [json.dumps(message, separators=(",", ":")).encode() + b"\n" for message in messages]
        for data in lines if number % 2 else [b"".join(lines)]:
            (outcome,), _ = group_commit.apply([Append(path, JSON, data)], USING)
            assert not isinstance(outcome, Exception)
        for message, line in zip(messages, lines, strict=True):
            model.tail += len(line)
            model.entries.append((message, model.tail))

    def trim(self, path: str, model: ModelStream, number: int) -> None:
        stream = Stream.objects.get(path=path)
        position = number * model.tail // 60
        stream.trim(stream.offset_at(position))
        first = Stream.objects.get(path=path).first_position
        assert model.first <= first <= max(position, model.first)
        model.first = first

    def retain(self, path: str, model: ModelStream, number: int) -> None:
        stream = Stream.objects.get(path=path)
        stream.retain(bytes=number * 10 + 1)
        apply_rules()
        stream.retain()
        first = Stream.objects.get(path=path).first_position
        assert model.tail - first >= min(number * 10 + 1, model.tail - model.first)
        model.first = first

    def fork(self, path: str, model: ModelStream, number: int) -> None:
        stream = Stream.objects.get(path=path)
        cut = [0, *(end for _, end in model.entries)][number % (len(model.entries) + 1)]
        self.made += 1
        name = f"s/{self.made}"
        if cut < model.first:
            with pytest.raises(OffsetOutOfRange, match=stream.first_offset):
                stream.fork(name, offset=stream.offset_at(cut))
            return
        # Of a part that was compacted before, a fork has what is left of it.
        left = [entry for entry in entries_of(stream) if entry[1] <= cut]
        assert entries_of(stream.fork(name, offset=stream.offset_at(cut))) == left
        self.models[name] = ModelStream(left, cut, model.first, cut)

    def delete(self, path: str, model: ModelStream, number: int) -> None:
        if number % 3 == 0:
            Stream.objects.get(path=path).delete()
            del self.models[path]

    def drop(self, path: str, model: ModelStream, number: int) -> None:
        drop()

    def compact(self, path: str, model: ModelStream, number: int) -> None:
        compaction.compact(USING, [*Stream.objects.values_list("id", flat=True)])

    def compact_keys(self, path: str, model: ModelStream, number: int) -> None:
        self.let_pass(number * HOUR // 20)
        compact_keys(self.now)

    def let_pass(self, time: int) -> None:
        self.now += time
        age = key_compaction.cache_seconds()
        assert age is not None
        if self.now - self.cached_since > age * SECOND:
            self.cache, self.cached_since = SegmentCache(1 << 20), self.now

    def look(self, path: str, model: ModelStream, number: int) -> None:
        """Read the stream page by page through the cache, from any position."""
        stream = Stream.objects.get(path=path)
        position = max(number * model.tail // 60, model.first)
        info = log_reader.find_ids([stream.pk], USING)[stream.pk]
        messages: list[Any] = []
        start = position
        while position < info.tail:
            request = log_reader.PageRequest(info, position, 40 + number)
            page = log_reader.pages([request], self.cache, USING)[stream.pk, position]
            assert page is not None
            assert page.end > position
            assert page.data or page.end == info.tail
            read = [*page.messages(JSON)]
            assert json.loads(page.body(JSON)) == [json.loads(one.data) for one in read]
            messages += [(json.loads(one.data), one.end) for one in read if one.end > position]
            position = page.end
        expected = model.after(start)
        assert is_part(messages, expected)
        assert state(message for message, _ in messages) == state(message for message, _ in expected)

    def stop_inside(self, path: str, model: ModelStream, number: int) -> None:
        """A process ends in the middle of a pass."""
        for job in due(self.now):
            present = key_passes.Pass(USING, job)
            while present.scan():
                pass
            for _ in range(number % 3):
                portion = None if present.is_complete else present.find()
                if portion is not None and portion.ids:
                    assert key_compaction.replace(USING, job, portion)

    def purge(self, path: str, model: ModelStream, number: int) -> None:
        removal.collect(USING)
        removal.purge(USING)

    def check(self) -> None:
        for stream in Stream.objects.filter(path__in=self.models):
            model = self.models[str(stream.path)]
            assert (stream.first_position, stream.tail_position) == (model.first, model.tail)
            whole = entries_of(stream)
            inherited = [entry for entry in whole if entry[1] <= model.cut]
            assert inherited == [entry for entry in model.after(model.first) if entry[1] <= model.cut]
            assert [message for message, _ in whole] == list(stream.read())
            for position in range(0, model.tail + 1, 7):
                self._check_read(stream, model, position, whole)

    def _check_read(self, stream: Stream, model: ModelStream, position: int, whole: list[Entry]) -> None:
        if position < model.first:
            with pytest.raises(OffsetTrimmed) as refused:
                list(stream.read(stream.offset_at(position)))
            assert refused.value.first_offset == stream.first_offset
            return
        messages = list(stream.read(stream.offset_at(position)))
        # A read inside an append returns it whole, so maybe from a message before the position.
        before = whole[: len(whole) - len(messages)]
        read = whole[len(before) :]
        assert messages == [message for message, _ in read]
        assert [entry for entry in read if entry[1] > position] == [entry for entry in whole if entry[1] > position]
        expected = model.after(min(before[-1][1] if before else model.first, position))
        assert is_part(read, expected)
        everything = [message for message, _ in expected]
        assert [one for one in messages if "n" in one] == [one for one in everything if "n" in one]
        assert state(messages) == state(everything)


often = ["append", "append", "append", "append", "look", "look", "compact_keys", "compact_keys", "fork"]
seldom = ["create", "trim", "retain", "drop", "compact", "delete", "purge", "stop_inside"]
names = st.sampled_from([*often, *seldom])
steps = st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 60)), max_size=20)


class KeyCompactionModelTests(TestCase):
    @given(steps)
    @settings(max_examples=enough(60))
    def test_every_read_leads_to_the_state_of_the_model(self, given_steps: list[tuple[str, int, int]]) -> None:
        with (
            override_streams(KEY_COMPACTION=RULES),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
            patch.setattr(key_compaction, "DIRTY_SHARE", 1 << 40)
            patch.setattr(key_passes, "BYTES", 300)
            patch.setattr(key_passes, "SMALL_BYTES", 100)
            world = World()
            for name, which, number in given_steps:
                world.step(name, which, number)
            world.check()
            drop()
            world.let_pass(3 * HOUR)
            compact_keys(world.now)
            world.check()
