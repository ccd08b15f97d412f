"""What a simulation calls a fault: each kind of it, in a history that is written by hand."""

import pytest

from .checks import Final, check
from .forks import Fork, check_forks
from .history import BYTES, DONE, JSON, MAYBE, NEVER, TEXT, History, Torn, Write, body, tokens
from .program import Path

S = Path("s", TEXT, lasting=True)
V = Path("v", TEXT, lasting=False)


def history() -> History:
    return History(lambda: 1000.0)


def appended(log: History, count: int = 1, outcome: str = DONE, path: str = "s") -> list[int]:
    write = log.write(path, "writer", count)
    log.wrote(write, outcome)
    return write.tokens


def faults(log: History, *result: int, path: Path = S, closed: bool = False) -> str:
    return "\n".join(check(log, [path], {path.name: Final(list(result), "9", closed)}))


@pytest.mark.parametrize("kind", [TEXT, BYTES, JSON])
def test_messages_are_read_as_they_were_written(kind: str) -> None:
    data = body(kind, [3, 4], 16)
    assert tokens(kind, data) == [3, 4]
    with pytest.raises(Torn):
        tokens(kind, data[:-2])


def test_what_was_acknowledged_has_to_be_there_once() -> None:
    log = history()
    first, second = appended(log), appended(log)
    assert not faults(log, *first, *second)
    assert "has lost the append [2]" in faults(log, *first)
    assert "twice: [1]" in faults(log, *first, *second, *first)


def test_what_was_not_answered_may_be_there_and_what_was_refused_may_not() -> None:
    log = history()
    maybe, never = appended(log, outcome=MAYBE), appended(log, outcome=NEVER)
    assert not faults(log)
    assert not faults(log, *maybe)
    assert "did not happen" in faults(log, *never)


def test_what_was_there_before_something_was_sent_lies_before_it() -> None:
    log = history()
    first, second = appended(log), appended(log)
    assert "has [2] before [1]" in faults(log, *second, *first)


def test_what_came_to_a_server_first_lies_first() -> None:
    log = history()
    first, second = (log.write("s", "writer") for _ in range(2))
    first.arrivals, second.arrivals = [("p", 0)], [("p", 1)]
    log.wrote(second, DONE)
    log.wrote(first, DONE)
    assert not faults(log, *first.tokens, *second.tokens)
    assert "came to p before it" in faults(log, *second.tokens, *first.tokens)


def test_an_append_is_in_one_piece() -> None:
    log = history()
    whole, other = appended(log, 2), appended(log)
    assert "in pieces" in faults(log, whole[0], *other, whole[1])


def test_a_deleted_stream_may_have_lost_all_and_keeps_nothing_for_the_next_one() -> None:
    log = history()
    old = appended(log, path="v")
    log.changed(log.change("delete", "v", "maker"), DONE)
    assert not faults(log, path=V)
    assert "that was deleted" in faults(log, *old, path=V)


def test_a_closed_stream_stays_closed() -> None:
    log = history()
    closing = log.write("s", "writer", closes=True)
    log.wrote(closing, DONE)
    assert not faults(log, *closing.tokens, closed=True)
    assert "is open" in faults(log, *closing.tokens)
    late = appended(log)
    assert "and then took" in faults(log, *closing.tokens, *late, closed=True)


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        ([1, 2, 3], ""),
        ([1, 2], ""),
        ([2, 3], "was given"),
        ([1, 3], "was given"),
        ([1, 1], "twice"),
        ([1, 2, 4], "did not happen"),
        ([1, 2, 3, 5], "a part of an append"),
        ([1, 2, 3, 7], "not of s"),
    ],
)
def test_a_reader_gets_whole_appends_from_where_it_began_without_a_gap(got: list[int], fault: str) -> None:
    log = history()
    there = [*appended(log), *appended(log), *appended(log)]
    appended(log, outcome=NEVER)
    there += appended(log, 2)
    session = log.session("s", "reader", "-1")
    log.read(session, got, "9", "read")
    result = faults(log, *there)
    assert fault in result
    assert bool(fault) == bool(result)


def test_an_instance_belongs_to_the_stream_that_was_there_when_it_was_loaded() -> None:
    log = history()
    loaded = log.moment()
    log.changed(log.change("delete", "v", "maker"), DONE)
    write = log.write("v", "program")
    write.loaded = loaded
    log.wrote(write, DONE)
    assert "another v" in faults(log, *write.tokens, path=V)


def fork_of(log: History, source: Path | Fork, name: str = "f", cut: Write | None = None) -> Fork:
    change = log.change("fork", name, "forker")
    log.changed(change, DONE)
    return Fork(Path(name, TEXT, lasting=True), source, cut, change)


def fork_faults(log: History, *forks: Fork, **final: list[int] | None) -> str:
    ends = {name: None if read is None else Final(read, "9", closed=False) for name, read in final.items()}
    return "\n".join(check_forks(log, forks, ends))


def test_a_fork_begins_with_what_was_in_its_source_and_goes_on_by_itself() -> None:
    log = history()
    (before,) = appended(log)
    fork = fork_of(log, S)
    (after,) = appended(log)
    (own,) = appended(log, path="f")
    assert not fork_faults(log, fork, s=[before, after], f=[before, own])
    assert "lacks [1], which was in s before it" in fork_faults(log, fork, s=[before, after], f=[own])
    assert "has [2], which came to s after it" in fork_faults(log, fork, s=[before, after], f=[before, after, own])
    assert "has lost the append [3]" in fork_faults(log, fork, s=[before, after], f=[before])
    assert "between its own" in fork_faults(log, fork, s=[before, after], f=[own, before])
    assert "and its source s with [2, 1]" in fork_faults(log, fork, s=[after, before], f=[before, own])
    assert "f is gone" in fork_faults(log, fork, s=[before, after], f=None)


def test_a_fork_is_cut_where_it_was_asked_to_be() -> None:
    log = history()
    appended(log, 2)
    appended(log)
    fork = fork_of(log, S, cut=log.writes[0])
    assert not fork_faults(log, fork, s=[1, 2, 3], f=[1, 2])
    for read in ([1], [1, 2, 3], []):
        assert "was cut after [1, 2] of s" in fork_faults(log, fork, s=[1, 2, 3], f=read)


def test_the_data_of_a_deleted_fork_is_kept_for_its_own_forks() -> None:
    log = history()
    appended(log)
    middle = fork_of(log, S, "m")
    appended(log, path="m")
    last = fork_of(log, middle)
    appended(log, path="m")
    middle.is_deleted = True
    assert not fork_faults(log, middle, last, s=[1], m=None, f=[1, 2])
    assert not fork_faults(log, middle, last, s=[1], m=[1, 2, 3], f=[1, 2])
    assert "f lacks [2]" in fork_faults(log, middle, last, s=[1], m=None, f=[1])
    assert "m lacks [1]" in fork_faults(log, middle, last, s=[1], m=None, f=[2])
