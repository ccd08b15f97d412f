"""Appends, trims, forks, deletes, compactions and deletions of trimmed data, beside a plain model in memory.

Every read returns what the model has, or is refused with the offset of the first data that is left.
"""

import json
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest
from django.db.models import Sum
from django.db.models.functions import Length
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.errors import OffsetOutOfRange, OffsetTrimmed
from django_durable_streams.store.upkeep import compaction, removal
from tests.store.trimming_steps import USING, apply_rules, drop

KINDS = ["application/json", "text/plain", "application/octet-stream"]


@dataclass
class ModelStream:
    kind: str
    appends: list[Any] = field(default_factory=list)
    """The values as they are read."""
    sizes: list[int] = field(default_factory=list)
    """The stored bytes of each."""
    first: int = 0

    @property
    def ends(self) -> list[int]:
        return [*accumulate(self.sizes)]

    @property
    def tail(self) -> int:
        return sum(self.sizes)

    def after(self, position: int) -> list[Any]:
        """Return what a read from a retained position returns."""
        if self.kind == "text/plain":
            text = "".join(self.appends)[position:]
            return [text] if text else []
        return [value for value, end in zip(self.appends, self.ends, strict=True) if end > position]

    def trimmed_to(self, position: int) -> int:
        """Return the first position after a trim."""
        if self.kind != "text/plain":
            position = max([end for end in self.ends if end <= position], default=0)
        return max(position, self.first)


def value_of(kind: str, number: int) -> Any:
    text = "x" * (number % 7 + 1)
    return {"n": text} if kind == KINDS[0] else text if kind == KINDS[1] else text.encode()


def size_of(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"))) + 1 if isinstance(value, dict) else len(value)


class World:
    """The streams and their models."""

    def __init__(self) -> None:
        self.models: dict[str, ModelStream] = {}
        self.made = 0

    def step(self, name: str, which: int, number: int) -> None:
        if name == "create" or not self.models:
            self.create(KINDS[which % 3])
            return
        path = [*self.models][which % len(self.models)]
        getattr(self, name)(path, self.models[path], number)

    def create(self, kind: str) -> None:
        path = f"s/{self.made}"
        self.made += 1
        self.models[path] = ModelStream(kind)
        Stream.objects.create(path=path, content_type=kind)

    def append(self, path: str, model: ModelStream, number: int) -> None:
        for one in range(number % 5 + 1):
            value = value_of(model.kind, number + one)
            tail = Stream.objects.get(path=path)
            tail.append(value, if_tail=tail.next_offset if one % 2 else None)
            model.appends.append(value)
            model.sizes.append(size_of(value))

    def trim(self, path: str, model: ModelStream, number: int) -> None:
        stream = Stream.objects.get(path=path)
        position = number % (model.tail + 1)
        expected = model.trimmed_to(position)
        assert stream.trim(stream.offset_at(position)) == stream.offset_at(expected)
        model.first = expected

    def retain(self, path: str, model: ModelStream, number: int) -> None:
        """Keep some messages: all of them, if appends are messages. Nothing more than a sixteenth is kept."""
        keep = number % 9 + 1
        stream = Stream.objects.get(path=path)
        stream.retain(messages=keep)
        apply_rules()
        stream.retain()
        ends = [0, *model.ends]
        first = Stream.objects.get(path=path).first_position
        kept = len([end for end in model.ends if end > first])
        all_before = len([end for end in model.ends if end > model.first])
        assert first in {*ends, model.first}
        assert kept >= min(keep, all_before)
        assert kept <= keep or first == model.first
        model.first = first

    def fork(self, path: str, model: ModelStream, number: int) -> None:
        stream = Stream.objects.get(path=path)
        count = number % (len(model.sizes) + 1)
        cut = sum(model.sizes[:count])
        name = f"s/{self.made}"
        self.made += 1
        if cut < model.first:
            with pytest.raises(OffsetOutOfRange, match=stream.first_offset):
                stream.fork(name, offset=stream.offset_at(cut))
            return
        stream.fork(name, offset=stream.offset_at(cut))
        self.models[name] = ModelStream(model.kind, model.appends[:count], model.sizes[:count], model.first)

    def delete(self, path: str, model: ModelStream, number: int) -> None:
        if number % 3 == 0:
            Stream.objects.get(path=path).delete()
            del self.models[path]

    def drop(self, path: str, model: ModelStream, number: int) -> None:
        drop()
        for stream in Stream.objects.filter(path__in=self.models, forks=None):
            first = max(stream.first_position, stream.fork_position or 0)
            stored = Chunk.objects.filter(stream=stream).aggregate(bytes=Sum(Length("data")))["bytes"] or 0
            assert stored <= 1.25 * (stream.tail_position - first)

    def compact(self, path: str, model: ModelStream, number: int) -> None:
        compaction.compact(USING, [*Stream.objects.values_list("id", flat=True)])

    def purge(self, path: str, model: ModelStream, number: int) -> None:
        removal.collect(USING)
        removal.purge(USING)

    def check(self) -> None:
        for stream in Stream.objects.filter(path__in=self.models):
            model = self.models[str(stream.path)]
            assert (stream.first_position, stream.tail_position) == (model.first, model.tail)
            assert self.read(stream, "-1") == model.after(model.first)
            for position in range(model.tail + 1):
                offset = stream.offset_at(position)
                if position >= model.first:
                    assert self.read(stream, offset) == model.after(position)
                else:
                    with pytest.raises(OffsetTrimmed) as refused:
                        self.read(stream, offset)
                    assert refused.value.first_offset == stream.first_offset

    def read(self, stream: Stream, offset: str) -> list[Any]:
        values = list(stream.read(offset))
        return ["".join(values)] if values and isinstance(values[0], str) else values


often, seldom = ["append", "append", "append", "trim", "trim", "fork", "fork"], ["create", "retain", "drop"]
names = st.sampled_from([*often, *seldom, "compact", "delete", "purge"])
steps = st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 60)), max_size=14)


class TrimmingModelTests(TestCase):
    @given(steps)
    @settings(max_examples=60)
    def test_every_read_is_what_the_model_says(self, given_steps: list[tuple[str, int, int]]) -> None:
        world = World()
        for name, which, number in given_steps:
            world.step(name, which, number)
        world.check()
        drop()
        world.check()
