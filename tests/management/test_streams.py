"""The subcommands of `manage.py streams`, in this process."""

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError, OutputWrapper
from django.db import connection, models
from django.db.models.signals import post_delete
from django.test import override_settings
from django.utils import timezone

from django_durable_streams import clock
from django_durable_streams.api import deletion, transactions
from django_durable_streams.management.streams import append, base, delete, prune, trim
from django_durable_streams.management.streams.table import SUBCOMMANDS
from django_durable_streams.models import Chunk, DatabaseIdentity, Stream
from django_durable_streams.store.operations import MoveEntries
from django_durable_streams.store.upkeep import related_rows
from django_durable_streams.store.upkeep.sweeping import Swept
from django_durable_streams.store.write import group_commit
from tests.management.commands import rows, rows_and_notes, streams
from tests.overriding import override_streams
from tests.referring import Make

JSON = "application/json"


@pytest.fixture(autouse=True)
def _database(db: None) -> None:
    pass


def text_of(path: str) -> list[Any]:
    return list(Stream.objects.get(path=path).read())


# --- output


def test_paths_of_clients_do_not_control_a_terminal() -> None:
    """U+009B begins a command on some terminals, U+202E turns the line around, and U+0085 begins another line."""
    path, shown = "a\x9b31m/b\u202ec\x85d é 👩\u200d💻", "a\\u009b31m/b\\u202ec\\u0085d é 👩\u200d💻"
    other = "z\x9d0;title\x9c"
    for name in (path, other):
        streams("create", name, "--type", "text")
        streams("append", name, "x")
    outputs = [
        streams("list"),
        streams("show", path, other),
        streams("read", path, other),
        streams("close", path, other),
        streams("delete", path, other, "--dry-run"),
        streams("delete", path, other, "--no-input"),
    ]
    assert not [text for text in outputs if not {"\x9b", "\x9d", "\x9c", "\u202e", "\x85"}.isdisjoint(text)]
    assert [shown in text for text in outputs] == [True] * 5 + [False]
    streams("create", path, "--type", "text")
    assert [row["path"] for row in rows("list")] == [path]  # scripts get the path itself


def test_a_question_shows_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "no")
    console = base.Console(OutputWrapper(io.StringIO()), OutputWrapper(io.StringIO()), {"verbosity": 1})
    with pytest.raises(CommandError):
        console.confirm("Delete a\x9b?", {"interactive": True})
    assert questions == ["Delete a\\u009b? [y/N] "]


# --- help


@pytest.mark.parametrize("name", [subcommand.name for subcommand in SUBCOMMANDS])
def test_every_subcommand_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        streams(name, "--help")
    assert ending.value.code == 0
    text = capsys.readouterr().out
    subcommand = next(one for one in SUBCOMMANDS if one.name == name)
    assert subcommand.help[1:] in " ".join(text.split())
    for line in subcommand.examples.strip().splitlines():
        assert line.strip() in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nothing"),
        ("read", "nothing"),
        ("tail", "nothing"),
        ("close", "nothing"),
        ("delete", "nothing"),
        ("append", "nothing", "x"),
        ("fork", "nothing", "a"),
        ("show", "a//b"),
        ("show", "none/**"),
        ("list", "a/*b/**"),
        ("read", "text", "--offset", "x"),
        ("create", "text"),
        ("create", "new", "--type", "nothing"),
        ("create", "new", "--ttl", "1y"),
        ("create", "new", "--expires-at", "yesterday"),
        ("create", "new", "--expires-at", "2020-01-01"),
        ("append", "closed", "x"),
        ("append", "json", "{"),
        ("append", "json", "1, 2"),
        ("append", "text", ""),
        ("delete",),
        ("delete", "text", "--consumer", "x"),
        ("delete", "--consumer", "x"),
        ("prune", "text", "--closed"),
        ("prune", "**"),
        ("prune", "--idle", "9999999w", "--no-input"),
        ("pause", "x"),
        ("trim", "nothing", "now"),
        ("trim", "text"),
        ("trim", "text", "now", "--older-than", "1h"),
        ("trim", "text", "--older-than", "9999999w"),
        ("trim", "text", "x"),
        ("trim", "text", "1764369600000000_0000000000000042"),
        ("set", "text"),
        ("set", "nothing", "--ttl", "5s"),
        ("set", "text", "--ttl", "0s"),
        ("set", "text", "--ttl", "5s", "--no-end"),
        ("set", "text", "--keep-bytes", "0"),
        ("set", "text", "--keep-all", "--keep-default"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: tuple[str, ...]) -> None:
    Stream.objects.create(path="text", content_type="text/plain")
    Stream.objects.create(path="json", content_type=JSON)
    Stream.objects.create(path="closed", content_type="text/plain", closed=True)
    before = [*Stream.objects.order_by("pk").values_list("path", "tail_position", "closed")]
    with pytest.raises(CommandError) as error:
        streams(*arguments)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) > 10
    assert [*Stream.objects.order_by("pk").values_list("path", "tail_position", "closed")] == before


@pytest.mark.parametrize("text", ["30", "0", "", "d", "-1d", "1.5d", "30 d", "30D", "30days", "1d2h", "\u0663d"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--no-input", "--idle="),
        ("prune-answers", "--no-input", "--", ""),
        ("trim", "text", "--no-input", "--older-than="),
        ("set", "text", "--ttl="),
        ("set", "text", "--keep-age="),
        ("create", "new", "--ttl="),
        ("fork", "text", "new", "--ttl="),
    ],
)
def test_a_duration_needs_its_unit(arguments: tuple[str, ...], text: str) -> None:
    """Who means 30 days and writes 30 must not lose what is older than 30 seconds."""
    stream = Stream.objects.create(path="text", content_type="text/plain", data="a")
    old = timezone.now() - timedelta(days=1)
    Stream.objects.unguarded().update(created_at=old, appended_at=old)
    *others, last = arguments
    with pytest.raises(CommandError, match="with its unit: 90s, 15m"):
        streams(*others, last + text)
    assert [*Stream.objects.values_list("pk", "path", "ttl")] == [(stream.pk, "text", None)]
    assert text_of("text") == ["a"]


# --- list, show, create, fork, stats


def test_streams_are_listed() -> None:
    Stream.objects.create(path="a/1", content_type=JSON, data={"n": 1})
    Stream.objects.create(path="a/2", closed=True)
    Stream.objects.create(path="b", ttl=60)
    lines = streams("list").splitlines()
    assert [line.split()[0] for line in lines] == ["a/1", "a/2", "b"]
    assert "8 bytes" in lines[0]
    assert "closed" in lines[1]
    assert [row["path"] for row in rows("list", "/a/")] == ["a/1", "a/2"]
    assert [row["path"] for row in rows("list", "*/1")] == ["a/1"]
    assert [row["path"] for row in rows("list", "--limit", "2")] == ["a/1", "a/2"]
    assert rows("list", "c") == rows("list", "--limit", "0") == []
    assert rows("list", "b")[0]["ttl"] == 60


def test_a_stream_is_shown() -> None:
    stream = Stream.objects.create(path="a", content_type=JSON, data={"n": 1})
    stream.append({"n": 2}, producer=("p", 0, 0))
    stream.fork("b", ttl=60)
    row, fork = rows("show", "a", "b")
    assert (row["next_offset"], row["size"], row["producers"], row["forks"], row["chunks"]) == (
        stream.next_offset,
        16,
        1,
        1,
        2,
    )
    assert (fork["forked_from"], fork["fork_offset"], fork["ttl"]) == ("a", stream.next_offset, 60)
    text = streams("show", "a", "b")
    assert "next offset" in text
    assert "forked from" in text.split("\n\n")[1]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("4w", 2_419_200)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert base.duration(text) == seconds


def test_streams_are_created() -> None:
    assert streams("create", "a", "/b", "--type", "json", "--ttl", "1h") == "a is created.\nb is created.\n"
    stream = Stream.objects.get(path="a")
    assert (stream.content_type, stream.ttl, stream.closed) == (JSON, 3600, False)
    assert streams("create", "a", "--type", "json", "--ttl", "1h", "--if-missing") == "a was there.\n"
    (row,) = rows("create", "c", "--closed", "--expires-at", "2090-01-01T00:00:00+01:00")
    stream = Stream.objects.get(path="c")
    assert (row["created"], stream.closed, stream.content_type) == (True, True, "application/octet-stream")
    assert stream.expires_at is not None
    assert stream.expires_at.isoformat() == "2089-12-31T23:00:00+00:00"


def test_a_fork_is_created() -> None:
    stream = Stream.objects.create(path="a", content_type=JSON, data={"n": 1})
    cut = stream.next_offset
    stream.append({"n": 2})
    streams("fork", "a", "b")
    streams("fork", "a", "c", "--offset", cut)
    streams("fork", "a", "d", "--offset", cut, "--sub-offset", "1")
    assert [len(text_of(path)) for path in "bcd"] == [2, 1, 2]


def test_streams_are_counted() -> None:
    stream = Stream.objects.create(path="a/1", content_type="text/plain", data="abc")
    stream.fork("a/2").append("de")
    Stream.objects.create(path="b", ttl=60, closed=True)
    Stream.objects.create(path="c").delete()
    stream.delete()
    (counts,) = rows("stats")
    expected = {"streams": 2, "closed": 1, "with_ttl": 1, "forks": 1, "soft_deleted": 1, "waiting_for_purge": 1}
    assert {name: counts[name] for name in expected} == expected
    assert (counts["bytes"], counts["chunks"]) == (2, 2)
    (below,) = rows("stats", "a/")
    assert (below["streams"], "chunks" in below) == (1, False)
    assert "2 bytes" in streams("stats")


# --- append


@pytest.mark.parametrize(
    ("kind", "flags", "stdin", "expected"),
    [
        (JSON, (), b'{"n": 1}\n\n[1,2]\r\n3', [{"n": 1}, [1, 2], 3]),
        (JSON, ("--lines",), b'a\n"b"\r\n\n', ["a", '"b"', ""]),
        (JSON, ("--raw",), b"[1,\n2]", [1, 2]),
        (JSON, ("--raw",), b" ", []),
        (JSON, (), b"", []),
        ("text/plain", (), b"a\n\nb", ["a\n", "\n", "b"]),
        ("text/plain", ("--raw",), b"a\nb\n", ["a\nb\n"]),
        ("text/plain", ("--ndjson",), b'{"n": 1}\n', ['{"n": 1}\n']),
        ("a/b", (), b"\x00\n\xff", [b"\x00\n\xff"]),
        ("a/b", ("--lines",), b"\x00\n\xff", [b"\x00\n", b"\xff"]),
    ],
)
def test_standard_input_becomes_messages(kind: str, flags: tuple[str, ...], stdin: bytes, expected: list[Any]) -> None:
    Stream.objects.create(path="a", content_type=kind)
    streams("append", "a", *flags, stdin=stdin)
    assert text_of("a") == expected


def test_json_is_stored_as_it_was_written() -> None:
    lines = b'{"n": 1.0}\n12345678901234567890123\n"\\u00e4"\n'
    streams("append", "a", "--create", "json", stdin=lines)
    assert Stream.objects.get(path="a").content_type == JSON
    assert streams("read", "a").encode() == lines


def test_lines_that_are_longer_than_a_read_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "READ_BYTES", 3)
    streams("append", "a", "--create", "text", stdin=b"abcdefgh\nij\n\nk")
    assert text_of("a") == ["abcdefgh\n", "ij\n", "\n", "k"]


@pytest.mark.parametrize("stdin", [b"x" * 200, b"x\n" + b"y" * 200 + b"\n", b'["' + b"x" * 200 + b'"]'])
@pytest.mark.parametrize("kind", ["text/plain", JSON])
def test_a_message_over_the_limit_is_refused(stdin: bytes, kind: str) -> None:
    Stream.objects.create(path="a", content_type=kind)
    with override_streams(MAX_APPEND_BYTES=100), pytest.raises(CommandError):
        streams("append", "a", stdin=stdin)


def test_the_number_of_a_refused_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "READ_BYTES", 4)
    Stream.objects.create(path="a", content_type=JSON)
    with pytest.raises(CommandError, match="Message 3"):
        streams("append", "a", stdin=b"1\n2\nx\n4\n")
    assert text_of("a") == [1, 2]


def test_the_same_input_of_a_producer_comes_once() -> None:
    Stream.objects.create(path="a", content_type=JSON)
    streams("append", "a", "--producer", "p", stdin=b"1\n2\n")
    streams("append", "a", "--producer", "p", stdin=b"1\n2\n3\n")
    streams("append", "a", "4", "--producer", "other")
    assert text_of("a") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "arguments",
    [
        "append a --producer p 1 2",
        "append --producer p a 1 2",
        "append a 1 --producer p 2",
        "append --prod p a 1 2",
        "append a 1 --producer=p 2",
        "-v 0 append a -v 1 1 --producer p 2 --json",
        "append -v1 a 1 --producer p -- 2",
        "append --producer p -- a 1 2",
    ],
)
def test_options_and_other_arguments_come_in_any_order(arguments: str) -> None:
    streams("create", "a", "--type", "json")
    for _ in range(2):  # the producer counts
        streams(*arguments.split())
    assert text_of("a") == [1, 2]


def test_paths_may_follow_an_option_and_messages_may_look_like_one() -> None:
    for path in ("a", "b", "c"):
        streams("create", path, "--type", "text")
    streams("append", "a", "-1", "--create", "text", "- x", "-x y", "--", "--close", "--", "-x")
    assert "".join(text_of("a")) == "-1- x-x y--close---x"
    assert [row["path"] for row in rows("show", "a", "-v", "2", "b")] == ["a", "b"]
    streams("delete", "a", "--no-input", "b")
    assert [row["path"] for row in rows("list", "--limit", "5", "")] == ["c"]
    for wrong in (("append", "c", "--close", "x", "--colse"), ("append", "c", "x", "--producer"), ("append", "--raw")):
        with pytest.raises(CommandError, match=r"unrecognized arguments: --colse|expected one argument|PATH"):
            streams(*wrong)


@pytest.mark.parametrize("message", ["--name=Ada Lovelace", "-x=a b", "--x=a\nb c", "-1=2 3", "-q a", "-- a"])
def test_a_message_like_an_option_with_a_value_keeps_its_place(message: str) -> None:
    streams("create", "a", "--type", "text")
    streams("append", "a", "1", message, "2", "--producer", "p")
    assert "".join(text_of("a")) == f"1{message}2"
    assert not Stream.objects.exclude(path="a").exists()


def test_messages_of_the_command_line_are_appended_and_the_stream_is_closed() -> None:
    (row,) = rows("append", "a", "x", "y", "--create", "text", "--close")
    stream = Stream.objects.get(path="a")
    assert (row["messages"], row["next_offset"], row["closed"]) == (2, stream.next_offset, True)
    assert (text_of("a"), stream.closed) == (["x", "y"], True)


# --- read, tail


def test_streams_are_read() -> None:
    stream = Stream.objects.create(path="a/1", content_type=JSON)
    stream.append_many([{"n": number} for number in range(3)])
    first = stream.append([1, 2])
    Stream.objects.create(path="a/2", content_type="text/plain", data="no line end")
    assert streams("read", "a/1") == '{"n":0}\n{"n":1}\n{"n":2}\n[1,2]\n'
    assert streams("read", "/a/2") == "no line end"
    assert streams("read", "a/2", "a/1") == "==> a/2 <==\nno line end\n\n==> a/1 <==\n" + streams("read", "a/1")
    assert streams("read", "a/*").startswith("==> a/1 <==\n")
    messages = rows("read", "a/**")
    assert [(row["path"], row["message"]) for row in messages[3:]] == [("a/1", [1, 2]), ("a/2", "no line end")]
    assert messages[3]["offset"] == first.offset
    for number, row in enumerate(messages[:4]):
        assert len(rows("read", "a/1", "--offset", row["offset"])) == 3 - number
    assert streams("read", "a/1", "--offset", "now") == ""


@pytest.mark.parametrize("is_deleted", [False, True])
def test_trimmed_data_is_not_read_and_is_no_damage(is_deleted: bool, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain")
    first, second = [stream.append(text).offset for text in ("one", "two")]
    stream.append("six")
    stream.trim(before=second)
    if is_deleted:
        Chunk.objects.unguarded().filter(end__lte=6)._raw_delete("default")
    with pytest.raises(CommandError, match=f"no longer retained. Go on at {second}"):
        streams("read", "a", "--offset", first)
    assert streams("read", "a") == "six"
    assert not caplog.records


def test_bytes_are_printed_in_base64_in_json() -> None:
    Stream.objects.create(path="a", data=b"\xff\n")
    Stream.objects.create(path="b", content_type="text/plain", data=b"\xc3")
    assert [row["data"] for row in rows("read", "a", "b")] == ["/wo=", "ww=="]


def test_a_long_stream_is_read_page_by_page() -> None:
    with override_streams(PAGE_BYTES=1000):
        stream = Stream.objects.create(path="a", content_type=JSON)
        stream.append_many(range(2000))
        assert streams("read", "a").split() == [str(number) for number in range(2000)]
        fork = stream.fork("b")
        fork.append("x")
        assert streams("read", "b").split()[-1] == '"x"'


def test_the_last_messages_are_printed() -> None:
    stream = Stream.objects.create(path="a", content_type=JSON)
    stream.append_many(range(30))
    Stream.objects.create(path="b", content_type="text/plain", data="x")
    assert streams("tail", "a").split() == [str(number) for number in range(20, 30)]
    assert streams("tail", "a", "-n", "1") == "29\n"
    assert streams("tail", "a", "-n", "0") == ""
    assert streams("tail", "**", "-n", "1") == "==> a <==\n29\n\n==> b <==\nx"
    assert [row["message"] for row in rows("tail", "a", "-n", "2")] == [28, 29]


# --- close, delete, prune


def test_streams_are_closed() -> None:
    for path in ("a", "b/1", "b/2"):
        Stream.objects.create(path=path)
    assert "would be closed" in streams("close", "b/*", "--dry-run")
    assert not Stream.objects.filter(closed=True).exists()
    assert streams("close", "b/*") == "b/1 is closed.\nb/2 is closed.\n"
    assert [*Stream.objects.filter(closed=True).order_by("path").values_list("path", flat=True)] == ["b/1", "b/2"]
    assert streams("close", "b/1") == "b/1 was closed.\n"


def test_streams_are_trimmed() -> None:
    stream = Stream.objects.create(path="a/1", content_type="text/plain", data="abc")
    stream.append("def")
    cut = stream.offset_at(3)
    assert "would be dropped" in streams("trim", "a/1", cut, "--dry-run")
    assert text_of("a/1") == ["abc", "def"]
    (row,) = rows("trim", "a/1", cut)
    assert (row["bytes"], row["first_offset"]) == (3, cut)
    assert text_of("a/1") == ["def"]
    (row,) = rows("trim", "a/*", "now", "--no-input")
    assert (row["bytes"], text_of("a/1")) == (3, [])


def test_old_data_is_trimmed_by_the_times_of_its_chunks() -> None:
    stream = Stream.objects.create(path="a/1", content_type="text/plain")
    stream.append("0")
    for number in range(1, 20):
        stream.append(str(number % 10))
    for age, chunk in enumerate(Chunk.objects.order_by("-end")):  # the newest one is 0 hours old
        created_at = timezone.now() - timedelta(hours=age, minutes=1)
        Chunk.objects.unguarded().filter(pk=chunk.pk).update(created_at=created_at)
    (row,) = rows("trim", "a/1", "--older-than", "15h", "--dry-run")
    assert (row["bytes"], len(text_of("a/1"))) == (5, 20)
    for older_than, left in (("30h", 20), ("15h", 15), ("15h", 15), ("5h", 5), ("90s", 1), ("0s", 0)):
        streams("trim", "a/*", "--older-than", older_than, "--no-input")
        assert len(text_of("a/1")) == left
    assert rows("trim", "a/1", "--older-than", "0s")[0]["bytes"] == 0


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("use_tz", [False, True])
def test_no_data_counts_as_older_than_it_is_when_clocks_are_set_back(
    zone: str, use_tz: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without USE_TZ, an hour of local time comes twice."""
    back = {"Europe/Berlin": (10, 25, 1), "America/New_York": (11, 1, 6), "Australia/Lord_Howe": (4, 4, 15)}
    month, day, hour = back.get(zone, (10, 25, 1))
    begin = datetime(2026, month, day, hour, tzinfo=UTC) - timedelta(hours=2)
    with override_settings(USE_TZ=use_tz, TIME_ZONE=zone):
        stream = Stream.objects.create(path="a/1", content_type="text/plain")
        for number in range(16):
            stream.append("x")
            written = clock.to_project(begin + timedelta(minutes=15 * number))
            Chunk.objects.unguarded().filter(end=number + 1).update(created_at=written)
        for minutes in range(0, 240, 20):
            monkeypatch.setattr(clock, "now", lambda minutes=minutes: begin + timedelta(minutes=60 + minutes))
            (row,) = rows("trim", "a/1", "--older-than", "1h", "--dry-run")
            older = minutes // 15 + 1
            assert older - 4 <= row["bytes"] <= older
            if use_tz or zone == "UTC":
                assert row["bytes"] == older


def test_a_trim_of_many_streams_passes_the_ones_that_are_gone_or_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Stream.objects.create(path=f"a/{number}", content_type="text/plain", data="abc") for number in range(4)]
    Chunk.objects.unguarded().filter(stream=made[2]).update(end=2)
    monkeypatch.setattr(trim, "each_stream", lambda *arguments: iter([*Stream.objects.order_by("path"), made[0]]))
    find = transactions.find

    def find_after_delete(path: str, *arguments: Any) -> Any:
        if path == "a/1":
            made[1].delete()
        return find(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(transactions, "find", find_after_delete)
        assert [row["path"] for row in rows("trim", "a/*", "now", "--no-input")] == ["a/0", "a/2", "a/3", "a/0"]
    monkeypatch.setattr(trim, "each_stream", lambda *arguments: iter([made[1]]))
    with pytest.raises(CommandError, match="no stream at this path"):
        streams("trim", "a/1", "now")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_offset_of_one_stream_trims_no_others(dry: tuple[str, ...]) -> None:
    made = [Stream.objects.create(path=f"a/{number}", content_type="text/plain", data="abc") for number in range(2)]
    with pytest.raises(CommandError, match="belongs to one stream"):
        streams("trim", "a/*", made[0].next_offset, "--no-input", *dry)
    assert [text_of(stream.path) for stream in made] == [["abc"]] * 2
    assert [row["bytes"] for row in rows("trim", "a/*", "-1", "--no-input", *dry)] == [0, 0]


def test_a_dry_run_says_what_the_run_does_also_beside_another_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream.objects.create(path="a/1", content_type="text/plain", data="abc")
    stream.append("def")
    stale = Stream.objects.get()
    stream.trim(stream.offset_at(3))
    monkeypatch.setattr(trim, "each_stream", lambda *arguments: iter([stale]))
    expected = rows("trim", "a/1", "now", "--dry-run")
    assert expected == rows("trim", "a/1", "now")
    assert expected[0]["bytes"] == 3


def test_a_fork_and_a_merged_chunk_keep_data_whose_age_is_not_known() -> None:
    source = Stream.objects.create(path="source", content_type="text/plain", data="abc")
    Chunk.objects.unguarded().update(created_at=timezone.now() - timedelta(hours=9))
    fork = source.fork("fork")
    assert rows("trim", "fork", "--older-than", "1h")[0]["bytes"] == 0
    fork.append("def")
    assert rows("trim", "fork", "--older-than", "1h")[0]["bytes"] == 0
    Chunk.objects.unguarded().filter(stream=fork).update(created_at=timezone.now() - timedelta(hours=2))
    assert rows("trim", "fork", "--older-than", "1h")[0]["bytes"] == 6
    assert text_of("source") == ["abc"]


def test_the_kept_bytes_and_the_rules_of_retention_are_shown() -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="abc")
    stream.append("def")
    text = " ".join(streams("show", "a").split())
    assert "bytes appended 6 bytes kept 6 keeps everything, as it has no rule of retention closed" in text
    assert rows("show", "a")[0]["has_retention_rule"] is False
    stream.retain(age=3600, bytes=100)
    stream.trim("now")
    text = " ".join(streams("show", "a").split())
    assert "bytes appended 6 bytes kept 0 keeps the newest 3,600 seconds, 100 bytes" in text
    (row,) = rows("show", "a")
    assert (row["size"], row["kept"]) == (6, 0)
    assert row["retention"] == {"age": 3600, "bytes": 100, "messages": None}
    assert row["has_retention_rule"] is True


def test_a_rule_by_messages_keeps_whole_appends_and_says_so() -> None:
    stream = Stream.objects.create(path="a", content_type="application/json")
    stream.append_many(range(8))
    stream.retain(messages=5)
    assert "keeps the newest 5 messages, whole appends closed" in " ".join(streams("show", "a").split())


@pytest.mark.parametrize("path", ["a/audit/by-setting", "a/own-all"])
def test_a_rule_that_keeps_everything_is_told_from_no_rule(path: str) -> None:
    with override_streams(RETENTION=KEEPING):
        _make_streams_with_rules()
        assert "keeps everything, by a rule of retention closed" in " ".join(streams("show", path).split())
        assert rows("show", path)[0]["has_retention_rule"] is True


KEEPING = {"a/audit/**": {}, "a/**": {"age": 86400}}
"""Rules of retention that keep everything of some streams."""


def _make_streams_with_rules() -> None:
    """Streams below a/, all old: two of them keep everything, one by the setting and one by its own rule."""
    for path in ("a/audit/by-setting", "a/audit/own-age", "a/by-setting", "a/own-all"):
        Stream.objects.create(path=path, content_type="text/plain", data="abc", closed=True)
    Stream.objects.get(path="a/audit/own-age").retain(age=60)
    Stream.objects.get(path="a/own-all").retain()
    old = timezone.now() - timedelta(days=40)
    Stream.objects.unguarded().update(created_at=old, appended_at=old)
    Chunk.objects.unguarded().update(created_at=old)


@override_streams(RETENTION=KEEPING)
@pytest.mark.parametrize("offset", [("now",), ("--older-than", "7d")])
def test_a_trim_by_a_pattern_leaves_out_streams_whose_rule_keeps_everything(offset: tuple[str, ...]) -> None:
    _make_streams_with_rules()
    command = ("trim", "a/**", *offset)
    for flags in (("--dry-run",), ("--no-input",)):
        trimmed, notes = rows_and_notes(*command, *flags)
        assert [(row["path"], row["bytes"]) for row in trimmed] == [("a/audit/own-age", 3), ("a/by-setting", 3)]
        assert "2 streams were left out" in notes
        assert "--include-keep-all" in notes
    assert [len(text_of(path)) for path in ("a/audit/by-setting", "a/own-all", "a/by-setting")] == [1, 1, 0]
    trimmed, notes = rows_and_notes(*command, "--include-keep-all", "--dry-run")
    assert (len(trimmed), notes) == (4, "")
    trimmed, notes = rows_and_notes("trim", "a/own-all", *offset)  # its name is clear enough
    assert (trimmed[0]["bytes"], notes) == (3, "")


@override_streams(RETENTION=KEEPING)
@pytest.mark.parametrize("pattern", [(), ("a/**",)])
@pytest.mark.parametrize("which", [("--idle", "30d"), ("--closed",), ("--closed", "--idle", "30d")])
def test_prune_leaves_out_streams_whose_rule_keeps_everything(
    pattern: tuple[str, ...], which: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", 1)
    _make_streams_with_rules()
    command = ("prune", *pattern, *which)
    (counts, *named), notes = rows_and_notes(*command, "--dry-run")
    assert (counts["deleted"], [row["path"] for row in named]) == (2, ["a/audit/own-age", "a/by-setting"])
    assert "2 streams were left out" in notes
    (counts, *named), notes = rows_and_notes(*command, "--include-keep-all", "--dry-run")
    assert (counts["deleted"], len(named), notes) == (4, 4, "")
    (counts,), notes = rows_and_notes(*command, "--no-input")
    assert (counts["deleted"], "2 streams were left out" in notes) == (2, True)
    assert [*Stream.objects.order_by("path").values_list("path", flat=True)] == ["a/audit/by-setting", "a/own-all"]
    assert rows(*command, "--include-keep-all", "--no-input")[0]["deleted"] == 2


def test_streams_without_a_rule_are_left_out_by_no_command() -> None:
    _make_streams_with_rules()
    Stream.objects.get(path="a/own-all").reset_retention()
    trimmed, notes = rows_and_notes("trim", "a/**", "now", "--dry-run")
    assert (len(trimmed), notes) == (4, "")
    (counts, *_), notes = rows_and_notes("prune", "--closed", "--dry-run")
    assert (counts["deleted"], notes) == (4, "")


@pytest.mark.parametrize(
    ("text", "remedy"), [("logs/old*", "logs/*"), ("*.txt", "*"), ("a*/b/**c", "*/b/*"), ("*old", "*")]
)
@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("prune", ("--idle", "1d")),
        ("delete", ("--no-input",)),
        ("trim", ("now",)),
        ("show", ()),
        ("read", ()),
        ("tail", ()),
        ("close", ()),
        ("set", ("--keep-all",)),
    ],
)
def test_a_star_beside_other_characters_is_explained(
    command: str, flags: tuple[str, ...], text: str, remedy: str
) -> None:
    Stream.objects.create(path="logs/older")
    with pytest.raises(CommandError, match=re.escape(f"so {text} has no wildcard. Write '{remedy}'.")):
        streams(command, text, *flags)


def test_a_list_of_nothing_explains_a_star_that_is_no_wildcard() -> None:
    Stream.objects.create(path="logs/old*er")
    assert rows_and_notes("list", "logs/old*")[1] == rows_and_notes("list", "logs/older")[1] == ""
    listed, notes = rows_and_notes("list", "log*")
    assert (listed, "so log* has no wildcard. Write '*'." in notes) == ([], True)
    assert rows("show", "logs/old*er")[0]["path"] == "logs/old*er"  # a path may have one


def test_lifetime_and_retention_are_set() -> None:
    stream = Stream.objects.create(path="a", ttl=60)
    (row,) = rows("set", "a", "--ttl", "2h", "--keep-age", "1d", "--keep-messages", "5")
    assert (row["ttl"], row["retention"]) == (7200, {"age": 86400, "bytes": None, "messages": 5})
    streams("set", "a", "--no-end", "--keep-all")
    stream.refresh_from_db()
    assert (stream.ttl, stream.deadline, any(stream.retention)) == (None, None, False)
    with override_streams(RETENTION={"a": {"bytes": 7}}):
        assert rows("set", "a", "--keep-default")[0]["retention"]["bytes"] == 7


def test_a_pattern_is_deleted_after_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete, "STREAMS_PER_TRANSACTION", 2)
    for path in ("a", "b/1", "b/2", "b/3"):
        Stream.objects.create(path=path)
    assert streams("delete", "b/*", "--dry-run").count("would be deleted") == 3
    monkeypatch.setattr("builtins.input", lambda prompt: "n" if "3 streams" in prompt else "?")
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams("delete", "b/*")
    monkeypatch.setattr("builtins.input", lambda prompt: exec("raise EOFError"))
    with pytest.raises(CommandError, match="--no-input"):
        streams("delete", "b/*")
    assert Stream.objects.alive().count() == 4
    assert streams("delete", "b/*", "--no-input") == "3 streams are deleted.\n"
    assert streams("delete", "a") == "1 stream is deleted.\n"
    assert not Stream.objects.alive().exists()


def test_a_copy_gets_an_identity_of_its_own_after_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DatabaseIdentity.objects.get()
    DatabaseIdentity.objects.update(link_rules_version=5)
    name = str(connection.settings_dict["NAME"])
    monkeypatch.setattr("builtins.input", lambda prompt: "n" if name in prompt else "y")
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams("new-identity")
    assert DatabaseIdentity.objects.get().value == before.value
    assert streams("new-identity", "--no-input") == f"The database {name} has a new identity.\n"
    after = DatabaseIdentity.objects.get()
    assert after.value != before.value
    assert (after.pk, after.link_rules_version) == (before.pk, 5)
    DatabaseIdentity.objects.all().delete()
    assert rows("new-identity", "--no-input") == [{"database": name}]
    assert DatabaseIdentity.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("prune", "--older-than", "1d"), "streams trim PATTERN --older-than DURATION"),
        (("prune", "logs/**", "--older-than=1d"), "--idle DURATION deletes whole streams"),
        (("trim", "logs/**", "--idle", "1d"), "streams prune PATTERN --idle DURATION"),
        (("delete", "logs/**", "--older-than", "1d"), "streams prune PATTERN --idle DURATION"),
        (("delete", "logs/**", "--idle", "1d"), "streams prune PATTERN --idle DURATION"),
        (("prune-answers", "--older-than", "1d"), "streams prune-answers 30d"),
    ],
)
def test_an_option_of_another_subcommand_leads_there(arguments: tuple[str, ...], hint: str) -> None:
    Stream.objects.create(path="logs/a")
    with pytest.raises(CommandError, match=r"There is no option --(older-than|idle) here") as caught:
        streams(*arguments)
    assert hint in str(caught.value)
    assert Stream.objects.alive().exists()


def test_prune_ends_what_waits_for_housekeeping() -> None:
    stream = Stream.objects.create(path="source", data=b"x")
    fork = stream.fork("fork")
    fork.fork("again").delete()
    stream.delete()
    fork.delete()
    Stream.objects.create(path="expired", data=b"x")
    Stream.objects.unguarded().filter(path="expired").update(deadline=clock.now() - timedelta(seconds=1))
    Stream.objects.create(path="alive", data=b"x")
    counts, *named = rows("prune", "--dry-run")
    assert named == [{"path": "expired", "outcome": "expired"}, {"path": "source", "outcome": "removed"}]
    assert (counts["expired"], counts["removed"], counts["purged"]) == (1, 1, 2)
    assert Stream.objects.count() == 5
    (counts,) = rows("prune")
    assert (counts["expired"], counts["removed"], counts["purged"], counts["left"]) == (1, 1, 4, 0)
    assert Stream.objects.get().path == "alive"
    assert Chunk.objects.count() == 1
    assert streams("prune") == "Nothing to delete.\n"
    assert streams("prune", "--dry-run") == "Nothing to delete.\n"


@pytest.mark.parametrize(
    ("counts", "dry", "wet"),
    [
        ((1, 0, 0, 0, 0), "1 stream would be deleted.", "1 stream was deleted."),
        ((2, 1, 0, 0, 0), "2 streams would be deleted. 1 expired stream would be deleted.", None),
        ((0, 2, 0, 2, 0), None, "2 expired streams were deleted. The data of 2 deleted streams was removed."),
        ((0, 0, 1, 0, 0), None, "1 deleted stream was removed, as no fork is left."),
        ((0, 0, 2, 0, 0), "2 deleted streams would be removed, as no fork is left.", None),
        (
            (0, 0, 0, 1, 1),
            None,
            "The data of 1 deleted stream was removed. 1 stream is left, because other transactions hold it.",
        ),
        ((0, 0, 0, 0, 3), None, "3 streams are left, because other transactions hold them."),
    ],
)
def test_the_summary_of_a_prune_leaves_out_what_is_zero(
    counts: tuple[int, int, int, int, int], dry: str | None, wet: str | None
) -> None:
    for text, dry_run in ((dry, True), (wet, False)):
        if text is not None:
            assert " ".join(prune._sentences(counts[0], Swept(*counts[1:]), dry_run)) == text


def test_prune_deletes_unused_streams() -> None:
    old = timezone.now() - timedelta(days=40)
    for path in ("a/old", "a/used", "a/new", "b/old", "a/closed"):
        Stream.objects.create(path=path, closed=path == "a/closed")
    Stream.objects.unguarded().exclude(path="a/new").update(created_at=old)
    Stream.objects.unguarded().filter(path="a/used").update(appended_at=timezone.now())
    assert rows("prune", "a/*", "--idle", "30d", "--dry-run")[0]["deleted"] == 2
    assert rows("prune", "a/*", "--idle", "30d", "--closed", "--no-input")[0]["deleted"] == 1
    assert not Stream.objects.filter(path="a/closed").exists()
    assert rows("prune", "--idle", "30d", "--no-input")[0]["deleted"] == 2
    assert [*Stream.objects.order_by("path").values_list("path", flat=True)] == ["a/new", "a/used"]


@override_streams(REGISTRY_PATH="a/registry")
def test_prune_keeps_the_registry() -> None:
    """It rests while no stream is created, closed or deleted, and readers from its start learn of all of them."""
    Stream.objects.create(path="a/old")
    group_commit.apply([MoveEntries("a/registry", 10)], "default")
    old = timezone.now() - timedelta(days=40)
    Stream.objects.unguarded().update(created_at=old, appended_at=old)
    assert rows("prune", "--idle", "30d", "--dry-run")[0]["deleted"] == 1
    assert rows("prune", "a/*", "--idle", "30d", "--no-input")[0]["deleted"] == 1
    Stream.objects.create(path="a/other")
    assert rows("prune", "--idle", "0s", "--no-input")[0]["deleted"] == 1
    assert [*Stream.objects.alive().values_list("path", flat=True)] == ["a/registry"]
    assert "1 stream is deleted" in streams("delete", "a/registry", "--no-input")


def test_a_dry_run_names_the_first_streams_and_all_of_them_on_request() -> None:
    for number in range(23):
        Stream.objects.create(path=f"a/{number:02}")
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40))
    Stream.objects.create(path="a/new")
    Stream.objects.create(path="b/expired")
    Stream.objects.unguarded().filter(path="b/expired").update(deadline=clock.now() - timedelta(seconds=1))
    command = ("prune", "a/*", "--idle", "30d", "--dry-run")
    lines = streams(*command).splitlines()
    assert lines[0].startswith("23 streams would be deleted. 1 expired stream would be deleted.")
    assert lines[1:21] == [f"a/{number:02} would be deleted." for number in range(20)]
    assert lines[21:] == ["And 4 more: -v 2 shows all of them."]
    everything = streams(*command, "-v", "2").splitlines()
    assert everything[21:] == [
        *[f"a/{number:02} would be deleted." for number in range(20, 23)],
        "b/expired has expired, so it would be removed.",
    ]
    assert [row["path"] for row in rows(*command)[1:]] == [*[f"a/{number:02}" for number in range(23)], "b/expired"]
    assert Stream.objects.count() == 25


@pytest.mark.parametrize("option", ["-v2", "--verbosity=2", "--traceback", "--no-color", "--force-color"])
def test_options_of_all_commands_may_stand_after_the_subcommand(option: str) -> None:
    Stream.objects.create(path="a")
    for subcommand in (("list",), ("show", "a"), ("prune", "--dry-run")):
        assert streams(*subcommand, option) == streams(option, *subcommand)


def test_a_deletion_that_a_row_stops_tells_what_was_deleted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    note = make("Note", models.PROTECT)
    for number in range(5):
        Stream.objects.create(path=f"a/{number}")
    row = note.objects.create(stream=Stream.objects.get(path="a/3"))
    monkeypatch.setattr(delete, "STREAMS_PER_TRANSACTION", 2)
    with pytest.raises(CommandError, match="2 streams are deleted, and then rows of the project forbid it"):
        streams("delete", "a/*", "--no-input")
    assert Stream.objects.alive().count() == 3
    with pytest.raises(CommandError, match="Nothing was changed"):
        streams("delete", "a/*", "--no-input")
    row.delete()
    assert "3 streams are deleted" in streams("delete", "a/*", "--no-input")


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT])
def test_prune_keeps_a_stream_that_a_row_protects_and_deletes_the_others(make: Make, on_delete: Any) -> None:
    note = make("Note", on_delete)
    for number in range(5):
        Stream.objects.create(path=f"a/{number}", data=b"x")
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40), appended_at=None)
    note.objects.create(stream=Stream.objects.get(path="a/3"))
    (counts,) = rows("prune", "a/*", "--idle", "30d", "--no-input")
    assert (counts["deleted"], counts["left"]) == (4, 1)
    assert [stream.path for stream in Stream.objects.all()] == ["a/3"]
    assert text_of("a/3") == [b"x"]


def _unused_streams_with_rows(make: Make) -> tuple[Any, Any, Any]:
    """Five unused streams, one that rows protect, one that has expired: all of them have rows but one."""
    room, bookmark, guard = (
        make("Room", models.CASCADE),
        make("Bookmark", models.SET_NULL),
        make("Lock", models.PROTECT),
    )
    line = make("Line", models.CASCADE, room=models.ForeignKey(room, models.CASCADE, related_name="+"))
    for path in ("a/0", "a/1", "a/2", "a/3", "a/none", "b/expired"):
        stream = Stream.objects.create(path=path)
        if path != "a/none":
            one = room.objects.create(stream=stream)
            line.objects.bulk_create([line(room=one), line(room=one, stream=stream)])
            bookmark.objects.create(stream=stream)
    guard.objects.create(stream=Stream.objects.get(path="a/3"))
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40))
    Stream.objects.unguarded().filter(path="b/expired").update(deadline=clock.now() - timedelta(seconds=1))
    return room, line, bookmark


def test_prune_counts_the_rows_of_the_project_that_follow_their_streams(make: Make) -> None:
    room, line, bookmark = _unused_streams_with_rows(make)
    command = ("prune", "a/*", "--idle", "30d")
    expected = {"sessions.Room": 4, "sessions.Line": 8}, {"sessions.Bookmark": 4}
    counts = rows(*command, "--dry-run")[0]
    assert (counts["deleted_rows"], counts["changed_rows"], counts["all_rows_counted"]) == (*expected, True)
    printed = streams(*command, "--dry-run").splitlines()[0]
    assert "8 rows of sessions.Line would be deleted with their streams." in printed
    assert "4 rows of sessions.Bookmark would be changed, as their on_delete says." in printed
    assert (room.objects.count(), line.objects.count(), bookmark.objects.filter(stream=None).count()) == (5, 10, 0)

    printed = streams(*command, "--no-input")
    assert "4 rows of sessions.Room were deleted with their streams." in printed
    assert "8 rows of sessions.Line were deleted with their streams." in printed
    assert "4 rows of sessions.Bookmark were changed, as their on_delete says." in printed
    assert (room.objects.count(), line.objects.count(), bookmark.objects.filter(stream=None).count()) == (1, 2, 4)
    assert "rows" not in streams("prune")


@pytest.mark.django_db(transaction=True)
def test_prune_counts_no_rows_of_a_transaction_that_was_rolled_back(make: Make) -> None:
    """A portion that the database forbids is repeated, each half."""
    room, hold = make("Room", models.CASCADE), make("Hold", models.DO_NOTHING)
    for number in range(4):
        room.objects.create(stream=Stream.objects.create(path=f"a/{number}"))
    held = hold.objects.create(stream=Stream.objects.get(path="a/3"))
    Stream.objects.unguarded().update(deadline=clock.now() - timedelta(seconds=1))
    counts = rows("prune")[0]
    assert (counts["purged"], counts["left"], counts["deleted_rows"]) == (3, 1, {"sessions.Room": 3})
    assert room.objects.count() == 1
    held.delete()
    assert rows("prune")[0]["deleted_rows"] == {"sessions.Room": 1}


@pytest.mark.parametrize("has_receivers", [False, True])
@pytest.mark.parametrize("on_delete", [models.SET_NULL, models.SET(None)])
def test_a_row_that_is_deleted_is_not_counted_as_changed(make: Make, has_receivers: bool, on_delete: Any) -> None:
    """With a receiver, Django deletes the rows one by one."""
    archive = models.ForeignKey(Stream, on_delete, null=True, related_name="+")
    room = make("Room", models.CASCADE, archive=archive)
    first, second = Stream.objects.create(path="a/1"), Stream.objects.create(path="a/2")
    kept = Stream.objects.create(path="b")
    for stream, other in ((first, second), (second, second), (kept, second), (first, kept)):
        room.objects.create(stream=stream, archive=other)
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40))

    def receiver(**kwargs: Any) -> None:
        pass

    if has_receivers:
        post_delete.connect(receiver, sender=room)
    try:
        would = rows("prune", "a/*", "--idle", "30d", "--dry-run")[0]
        done = rows("prune", "a/*", "--idle", "30d", "--no-input")[0]
    finally:
        post_delete.disconnect(receiver, sender=room)
    expected = {"sessions.Room": 3}, {"sessions.Room": 1}
    assert (would["deleted_rows"], would["changed_rows"]) == expected
    assert (done["deleted_rows"], done["changed_rows"]) == expected
    assert [*room.objects.values_list("stream__path", "archive")] == [("b", None)]


def test_a_dry_run_counts_no_rows_of_expired_streams_that_forks_keep(make: Make) -> None:
    room = make("Room", models.CASCADE)
    for name in ("kept", "gone"):
        source = Stream.objects.create(path=name)
        fork = source.fork(f"{name}/fork")
        room.objects.bulk_create([room(stream=source), room(stream=fork)])
    Stream.objects.unguarded().exclude(path="kept/fork").update(deadline=clock.now() - timedelta(seconds=1))
    would = rows("prune", "--dry-run")[0]["deleted_rows"]
    assert would == rows("prune")[0]["deleted_rows"] == {"sessions.Room": 2}
    assert [*room.objects.values_list("stream__path", flat=True)] == ["kept", "kept/fork"]


def test_a_dry_run_looks_at_few_rows_of_each_portion(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    room = make("Room", models.CASCADE)
    for number in range(8):
        stream = Stream.objects.create(path=f"a/{number}")
        room.objects.bulk_create([room(stream=stream) for _ in range(10)])
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40))
    monkeypatch.setattr(related_rows, "MAX_ROWS", 25)
    counts = rows("prune", "a/*", "--idle", "30d", "--dry-run")[0]
    assert (counts["deleted_rows"], counts["all_rows_counted"]) == ({"sessions.Room": 40}, False)


@pytest.mark.parametrize(("streams_limit", "rows_limit"), [(1, 1000), (5000, 2), (5000, 4)])
def test_a_dry_run_does_not_count_all_rows_of_huge_tables(
    make: Make, monkeypatch: pytest.MonkeyPatch, streams_limit: int, rows_limit: int
) -> None:
    _unused_streams_with_rows(make)
    monkeypatch.setattr(prune, "STREAMS_PER_TRANSACTION", 2)
    monkeypatch.setattr(related_rows, "MAX_STREAMS", streams_limit)
    monkeypatch.setattr(related_rows, "MAX_ROWS", rows_limit)
    command = ("prune", "a/*", "--idle", "30d", "--dry-run")
    counts = rows(*command)[0]
    assert not counts["all_rows_counted"]
    assert counts["deleted_rows"].get("sessions.Room", 0) < 4
    assert ("too many to count" if rows_limit == 2 else "At least ") in streams(*command)


@pytest.mark.parametrize("is_referred_to", [False, True])
def test_prune_keeps_a_stream_that_is_appended_to_right_before_its_deletion(
    make: Make, monkeypatch: pytest.MonkeyPatch, is_referred_to: bool
) -> None:
    note = make("Note", models.CASCADE) if is_referred_to else None
    for path in ("a/1", "a/2", "a/3"):
        stream = Stream.objects.create(path=path)
        if note is not None:
            note.objects.create(stream=stream)
    Stream.objects.unguarded().update(created_at=timezone.now() - timedelta(days=40))
    delete_unchanged = deletion.delete_unchanged

    def after_an_append(rows: list[tuple[str, int, int]], using: str) -> int:
        Stream.objects.get(path="a/2").append(b"x")
        return delete_unchanged(rows, using)

    monkeypatch.setattr(deletion, "delete_unchanged", after_an_append)
    assert rows("prune", "a/*", "--idle", "30d", "--no-input")[0]["deleted"] == 2
    assert text_of("a/2") == [b"x"]
    assert not Stream.objects.alive().filter(path__in=["a/1", "a/3"]).exists()
    if note is not None:
        assert [one.stream.path for one in note.objects.all()] == ["a/2"]
