"""What the commands that delete say of the project's own rows: before, in the question, and afterwards."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import models
from django.utils import timezone

from django_durable_streams import clock
from django_durable_streams.management.streams import prune
from django_durable_streams.management.streams.base import SHOWN_LINES
from django_durable_streams.models import Stream
from django_durable_streams.store.upkeep import related_rows, removal
from tests.management.commands import rows, rows_and_notes, streams
from tests.overriding import override_streams
from tests.referring import LABEL, Make

pytestmark = pytest.mark.django_db
PRUNE = ("prune", "a/*", "--idle", "30d")


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that were asked. The answer is no."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    return asked


def old_streams(count: int) -> list[Stream]:
    """Create streams at a/0, a/1 and so on, which are unused."""
    for number in range(count):
        Stream.objects.create(path=f"a/{number}", data=b"x")
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40), appended_at=None)
    return list(Stream.objects.order_by("path"))


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT])
@pytest.mark.parametrize("through_a_room", [False, True])
def test_a_dry_run_of_prune_foretells_what_rows_protect(make: Make, on_delete: Any, through_a_room: bool) -> None:
    """A stream is protected by its own row, or by a row that protects another one which would go with the stream."""
    room = make("Room", models.CASCADE)
    more = {"room": models.ForeignKey(room, on_delete, null=True, related_name="+")}
    note = make("Note", on_delete, **more)
    for number, stream in enumerate(old_streams(5)):
        one = room.objects.create(stream=stream)
        if number in (1, 3):
            note.objects.create(**{"room": one} if through_a_room else {"stream": stream})
    counts, *named = rows(*PRUNE, "--dry-run")
    expected = {"deleted": 3, "left": 2, "protected": 2, "protected_by": [f"{LABEL}.Note"]}
    assert {key: counts[key] for key in expected} == expected
    assert [row["path"] for row in named if row["outcome"] == "protected"] == ["a/1", "a/3"]
    lines = streams(*PRUNE, "--dry-run").splitlines()
    assert f"2 streams would be left, because rows of {LABEL}.Note protect them." in lines[0]
    assert "a/1 would be left." in lines

    (done,) = rows(*PRUNE, "--no-input")
    assert {key: done[key] for key in expected} == expected
    assert done["deleted_rows"] == counts["deleted_rows"] == {f"{LABEL}.Room": 3}
    assert f"2 streams are left, because rows of {LABEL}.Note protect them." in streams(*PRUNE, "--no-input")


def test_a_dry_run_of_prune_names_the_streams_that_go_first(make: Make) -> None:
    note = make("Note", models.PROTECT)
    for stream in old_streams(SHOWN_LINES + 2)[:SHOWN_LINES]:
        note.objects.create(stream=stream)
    _, *named, more = streams(*PRUNE, "--dry-run").splitlines()
    assert [line.endswith(" would be deleted.") for line in named] == [True] * 2 + [False] * (SHOWN_LINES - 2)
    assert more == "And 2 more: -v 2 shows all of them."


def test_streams_that_were_deleted_already_may_be_protected_too(make: Make) -> None:
    """A request or the expiry ends a stream that rows protect. The row of the stream stays for them."""
    note = make("Note", models.PROTECT)
    gone, expired, free = old_streams(3)
    for stream in (gone, expired):
        note.objects.create(stream=stream)
    for stream in (gone, free):
        Stream.objects.unguarded().filter(pk=stream.pk).update(deadline=clock.now() - timedelta(seconds=1))
        removal.expire("default")
    Stream.objects.unguarded().filter(pk=expired.pk).update(deadline=clock.now() - timedelta(seconds=1))
    counts = rows("prune", "--dry-run")[0]
    assert (counts["expired"], counts["purged"], counts["left"], counts["protected"]) == (1, 1, 2, 2)
    (done,) = rows("prune")
    assert (done["expired"], done["purged"], done["left"], done["protected"]) == (1, 1, 2, 2)
    assert done["protected_by"] == [f"{LABEL}.Note"]
    assert streams("prune") == f"2 streams are left, because rows of {LABEL}.Note protect them.\n"


def test_only_the_first_streams_are_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    note = make("Note", models.PROTECT)
    note.objects.bulk_create(note(stream=stream) for stream in old_streams(6))
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", 2)
    monkeypatch.setattr(related_rows, "MAX_STREAMS", 3)
    counts = rows(*PRUNE, "--dry-run")[0]
    assert (counts["deleted"], counts["left"], counts["all_rows_counted"]) == (2, 4, False)
    assert "At least 4 streams would be left" in streams(*PRUNE, "--dry-run")


def test_many_protected_streams_take_a_few_queries(make: Make, django_assert_max_num_queries: Any) -> None:
    note = make("Note", models.PROTECT)
    note.objects.bulk_create(note(stream=stream) for stream in old_streams(40))
    preview = related_rows.Preview("default")
    with django_assert_max_num_queries(3):
        assert preview.look([list(Stream.objects.values_list("pk", flat=True))]) == 40


def test_the_question_of_prune_names_the_rows(make: Make, questions: list[str]) -> None:
    room, note = make("Room", models.CASCADE), make("Note", models.PROTECT)
    one, two, three = old_streams(3)
    room.objects.create(stream=one)
    note.objects.create(stream=two)
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams(*PRUNE)
    assert questions == [
        f"1 stream would be left, because rows of {LABEL}.Note protect it. "
        f"1 row of {LABEL}.Room would be deleted with its stream. Delete 2 streams? [y/N] "
    ]
    note.objects.bulk_create([note(stream=one), note(stream=three)])
    (done,) = rows(*PRUNE)  # there is nothing to ask about
    assert (len(questions), done["deleted"], done["left"]) == (1, 0, 3)
    assert Stream.objects.alive().count() == 3


def test_delete_names_the_rows_before_and_afterwards(make: Make, questions: list[str]) -> None:
    room, note = make("Room", models.CASCADE), make("Note", models.PROTECT)
    one, two = old_streams(2)
    room.objects.bulk_create([room(stream=one), room(stream=one)])
    lock = note.objects.create(stream=two)
    with_rows = f"2 rows of {LABEL}.Room would be deleted with their streams."
    stops = "The command stops at a protected stream."
    assert streams("delete", "a/*", "--dry-run").splitlines() == [
        "a/0 would be deleted.",
        f"a/1 cannot be deleted, because rows of {LABEL}.Note protect it.",
        f"1 stream would be left, because rows of {LABEL}.Note protect it. {with_rows} {stops}",
    ]
    *named, counts = rows("delete", "a/*", "--dry-run")
    assert named == [{"path": "a/0"}, {"path": "a/1", "protected_by": [f"{LABEL}.Note"]}]
    assert (counts["protected"], counts["deleted_rows"]) == (1, {f"{LABEL}.Room": 2})
    lock.delete()
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams("delete", "a/*")
    assert questions == [f"{with_rows} Delete 2 streams? [y/N] "]
    printed = streams("delete", "a/*", "--no-input")
    assert printed == f"2 streams are deleted. 2 rows of {LABEL}.Room were deleted with their streams.\n"


@pytest.mark.parametrize("portion", [1, 500])
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "keys",
    list(product((models.CASCADE, models.SET_NULL), repeat=2)),
    ids=lambda keys: "-".join(k.__name__ for k in keys),
)
def test_a_row_to_which_two_ways_lead_counts_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, portion: int, one_by_one: bool, keys: Any
) -> None:
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", portion)
    other = models.ForeignKey(Stream, keys[1], null=True, related_name="+")
    room = make("Room", keys[0], other=other)
    if one_by_one:  # Django loads such rows
        make("Note", models.CASCADE, room=models.ForeignKey(room, models.CASCADE, null=True, related_name="+"))
    one, two = old_streams(2)
    for first, second in ((one, two), (two, one), (one, one)):
        room.objects.create(stream=first, other=second)
    foretold, (done, *_) = rows(*PRUNE, "--dry-run")[0], rows(*PRUNE, "--no-input")
    for name in ("deleted_rows", "changed_rows"):
        assert foretold[name] == done[name], name
    if models.CASCADE in keys:
        assert done["deleted_rows"] == {f"{LABEL}.Room": 3}
    elif portion == 500:
        assert done["changed_rows"] == {f"{LABEL}.Room": 3}


@pytest.mark.parametrize("portion", [1, 500])
def test_a_row_that_its_parent_and_its_own_key_lead_to_counts_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", portion)
    room = make("Room", models.CASCADE)
    own = models.ForeignKey(Stream, models.CASCADE, null=True, related_name="+")
    private = make("Private", models.CASCADE, base=room, own=own)
    one, two = old_streams(2)
    private.objects.create(stream=one, own=one)
    private.objects.create(stream=one, own=two)
    foretold, done = rows(*PRUNE, "--dry-run")[0], rows(*PRUNE, "--no-input")[0]
    assert foretold["deleted_rows"] == done["deleted_rows"] == {f"{LABEL}.Room": 2, f"{LABEL}.Private": 2}


@pytest.mark.parametrize("portion", [1, 500])
def test_a_circle_of_rows_counts_once(make: Make, monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    """Each of its streams leads to all of its rows, and to those that refer to them."""
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", portion)
    parent, friend = (
        models.ForeignKey("self", on_delete, null=True, related_name="+")
        for on_delete in (models.CASCADE, models.SET_NULL)
    )
    room = make("Room", models.CASCADE, parent=parent, friend=friend)
    one, two = (room.objects.create(stream=stream) for stream in old_streams(2))
    two.parent, one.parent, one.friend = one, two, two
    one.save()
    two.save()
    for last in (one, two):
        room.objects.create(friend=last)
    foretold, done = rows(*PRUNE, "--dry-run")[0], rows(*PRUNE, "--no-input")[0]
    for name, count in {"deleted_rows": 2, "changed_rows": 2}.items():
        assert foretold[name] == done[name] == {f"{LABEL}.Room": count}


@pytest.mark.skipif(not hasattr(models, "CompositePrimaryKey"), reason="Django has no such keys")
@pytest.mark.parametrize("on_delete", [models.CASCADE, models.SET_NULL])
def test_rows_with_a_primary_key_of_several_columns_count_too(make: Make, on_delete: Any) -> None:
    other = models.ForeignKey(Stream, models.SET_NULL, null=True, related_name="+")
    key = models.CompositePrimaryKey("first", "second")
    room = make("Room", on_delete, first=models.IntegerField(), second=models.IntegerField(), other=other, pk=key)
    one, two = old_streams(2)
    for number, (first, second) in enumerate([(one, one), (one, two), (None, two)]):
        room.objects.create(first=number, second=number, stream=first, other=second)
    foretold, done = rows(*PRUNE, "--dry-run")[0], rows(*PRUNE, "--no-input")[0]
    for name in ("deleted_rows", "changed_rows"):
        assert foretold[name] == done[name]
    assert foretold["changed_rows"] == {f"{LABEL}.Room": 1 if on_delete is models.CASCADE else 3}


def test_the_rows_of_a_preview_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that go with rows which refer to the streams."""
    monkeypatch.setattr(related_rows, "MAX_ROWS", 4)
    room = make("Room", models.CASCADE)
    note = make("Note", models.SET_NULL, room=models.ForeignKey(room, models.CASCADE, null=True, related_name="+"))
    (stream,) = old_streams(1)
    one = room.objects.create(stream=stream)
    note.objects.bulk_create(note(room=one) for _ in range(9))
    counts = rows(*PRUNE, "--dry-run")[0]
    assert counts["deleted_rows"][f"{LABEL}.Note"] in range(4, 9)
    assert counts["all_rows_counted"] is False


def test_memberships_count_under_the_name_of_their_field(make: Make) -> None:
    """Django's table has no name that a project has written."""
    person = make("Person", models.SET_NULL)
    room = make("Room", models.CASCADE, members=models.ManyToManyField(person, related_name="+"))
    (stream,) = old_streams(1)
    room.objects.create(stream=stream).members.add(person.objects.create(), person.objects.create())
    expected = {f"{LABEL}.Room": 1, f"{LABEL}.Room.members": 2}
    assert rows(*PRUNE, "--dry-run")[0]["deleted_rows"] == expected
    assert rows(*PRUNE, "--no-input")[0]["deleted_rows"] == expected


def test_the_question_of_trim_has_the_number_of_streams(questions: list[str]) -> None:
    old_streams(3)
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams("trim", "a/*", "now")
    with override_streams(RETENTION={"a/0": {}}), pytest.raises(CommandError, match="Nothing was changed"):
        streams("trim", "a/*", "now")
    with override_streams(RETENTION={"a/*": {}}):
        assert "3 streams were left out" in rows_and_notes("trim", "a/*", "now")[1]
    assert questions == [f"Drop data of {count} streams matching a/*? [y/N] " for count in (3, 2)]


def empty_in_memory(collector: Any, field: Any, rows: Any, using: str) -> None:
    """Empty the keys of rows that a project has chosen in Python: Django takes a list of rows as well."""
    collector.add_field_update(field, None, [row for row in rows if row.is_public])


def test_rows_that_a_project_has_chosen_in_python_are_counted(make: Make) -> None:
    note = make("Note", empty_in_memory, is_public=models.BooleanField())
    for stream in old_streams(3)[:2]:
        for is_public in (True, False):
            note.objects.create(stream=stream, is_public=is_public)
    counts = rows(*PRUNE, "--dry-run")[0]
    (done,) = rows(*PRUNE, "--no-input")
    assert done["changed_rows"] == counts["changed_rows"] == {f"{LABEL}.Note": 2}
    assert note.objects.filter(stream=None).count() == 2
