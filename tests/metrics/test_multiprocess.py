"""The files of multi-process mode, in one process: what is written, and by whom."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from django_durable_streams.contrib.prometheus import multiprocess
from django_durable_streams.contrib.prometheus.multiprocess import Writer
from django_durable_streams.contrib.prometheus.value_files import WholeFilesCollector
from django_durable_streams.engine.numbers import COMMITTER, EngineNumbers
from django_durable_streams.runtime.log_once import LogOnce
from django_durable_streams.server.request_numbers import RequestStats
from django_durable_streams.stats import ProcessStats
from django_durable_streams.store.operations import Commit
from tests.entry_points.probed import wait_until
from tests.metrics.test_several_workers import sums


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(multiprocess.DIRECTORY, str(tmp_path))
    return tmp_path


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> EngineNumbers:
    """The numbers that a writer writes."""
    numbers = EngineNumbers("default")
    requests = RequestStats({("asgi", "read", 200): 7}, {}, {})
    monkeypatch.setattr(multiprocess, "process_stats", lambda: ProcessStats(1, (numbers.stats(),), requests))
    return numbers


def append(numbers: EngineNumbers) -> None:
    numbers.count([Commit(1, "a", "text/plain", 0, 3, False, ends=[1, 3])], COMMITTER)


def shown(directory: Path) -> str:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry).decode()


def test_all_kinds_of_metrics_are_written(directory: Path, numbers: EngineNumbers) -> None:
    batches = multiprocess_batches(numbers)
    writer = Writer()
    append(numbers)
    writer.write()
    append(numbers)
    batches.observe(3)
    batches.observe(5000)
    writer.write()
    text = shown(directory)
    assert sums(text, "durable_streams_appends_total", "origin") == {("committer",): 4}
    assert sums(text, "durable_streams_requests_total", "entry_point", "operation", "status") == {
        ("asgi", "read", "200"): 7
    }
    buckets = sums(text, "durable_streams_commit_batch_size_bucket", "le")
    assert (buckets[("2.0",)], buckets[("4.0",)], buckets[("1024.0",)], buckets[("+Inf",)]) == (0, 1, 1, 2)
    assert sums(text, "durable_streams_commit_batch_size_count") == {(): 2}
    assert sums(text, "durable_streams_commit_batch_size_sum") == {(): 5003}
    assert sums(text, "durable_streams_waiting_operations") == {(): 0}


def test_a_gauge_of_what_is_gone_is_zero(
    directory: Path, numbers: EngineNumbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = {"sse": 3, "tail": 1}
    stats = EngineNumbers.stats
    monkeypatch.setattr(EngineNumbers, "stats", lambda self: replace(stats(self), live_readers=dict(readers)))
    writer = Writer()
    writer.write()
    assert sums(shown(directory), "durable_streams_live_readers", "kind") == {("sse",): 3, ("tail",): 1}
    del readers["sse"]
    writer.write()
    assert sums(shown(directory), "durable_streams_live_readers", "kind") == {("sse",): 0, ("tail",): 1}
    readers["sse"] = 2
    writer.write()
    assert sums(shown(directory), "durable_streams_live_readers", "kind") == {("sse",): 2, ("tail",): 1}


def multiprocess_batches(numbers: EngineNumbers) -> Any:
    from django_durable_streams.runtime.counting import BatchNumbers

    batches = BatchNumbers()
    numbers.committers.append(batches)
    return batches.sizes


def test_a_fork_has_files_of_its_own(directory: Path, numbers: EngineNumbers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocess, "writer", writer := Writer())
    append(numbers)
    writer.write()
    child = os.fork()
    if child == 0:
        writer._reset()  # as the hook does for the writer of the process
        writer.write()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (directory / f"counter_{child}-streams.db").exists()
    assert (directory / f"counter_{os.getpid()}-streams.db").exists()


def test_only_the_gauges_of_the_dead_are_removed(directory: Path, numbers: EngineNumbers) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    Writer().write()
    others = [
        "gauge_livesum_1.db",
        f"gauge_livesum_{child}.db",
        f"counter_{child}-streams.db",
        "gauge_livesum_x-streams.db",
    ]
    for name in [*others, f"gauge_livesum_{child}-streams.db"]:
        (directory / name).touch()
    multiprocess.remove_dead()
    names = {path.name for path in directory.iterdir()}
    assert {*others, f"gauge_livesum_{os.getpid()}-streams.db"} <= names
    assert f"gauge_livesum_{child}-streams.db" not in names


def test_a_process_with_the_id_of_an_earlier_one_adds_to_its_counters(
    directory: Path, numbers: EngineNumbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, ids come again with each restart. A sum that falls counts anew in Prometheus, as a whole."""
    readers = {"sse": 3}
    stats = EngineNumbers.stats
    monkeypatch.setattr(EngineNumbers, "stats", lambda self: replace(stats(self), live_readers=dict(readers)))
    multiprocess_batches(numbers).observe(3)
    append(numbers)
    Writer().write()  # and the process is killed
    numbers.forget()
    del readers["sse"]
    batches = multiprocess_batches(numbers)
    later = Writer()
    later.write()
    assert sums(shown(directory), "durable_streams_appends_total") == {(): 4}  # of both: `forget` keeps the appends
    append(numbers)
    batches.observe(3)
    batches.observe(5000)
    later.write()
    text = shown(directory)
    assert sums(text, "durable_streams_appends_total") == {(): 6}
    assert sums(text, "durable_streams_commit_batch_size_sum") == {(): 5006}
    buckets = sums(text, "durable_streams_commit_batch_size_bucket", "le")
    assert (buckets[("4.0",)], buckets[("+Inf",)]) == (2, 3)
    assert sums(text, "durable_streams_live_readers", "kind") == {}


def test_a_process_that_ends_writes_its_last_numbers(directory: Path, numbers: EngineNumbers) -> None:
    writer = Writer()
    writer.write()
    append(numbers)
    writer.finish()
    assert sums(shown(directory), "durable_streams_appends_total") == {(): 2}
    assert list(directory.glob("gauge_*")) == []
    Writer().finish()  # it has written nothing, and needs no directory


def test_writing_goes_on_when_the_directory_is_there_again(
    directory: Path, numbers: EngineNumbers, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(multiprocess, "INTERVAL", 0.01)
    append(numbers)
    missing = directory / "missing"
    monkeypatch.setenv(multiprocess.DIRECTORY, str(missing))
    writer = Writer()
    writer.start()
    wait_until(lambda: "The metrics cannot be written" in caplog.text, 10, "a log message")
    missing.mkdir()
    wait_until(lambda: sums(shown(missing), "durable_streams_appends_total") == {(): 2}, 10, "the numbers")
    for path in missing.iterdir():  # somebody cleans up
        path.unlink()
    append(numbers)
    wait_until(lambda: sums(shown(missing), "durable_streams_appends_total") == {(): 4}, 10, "the numbers")
    writer.finish()
    assert writer._thread is not None
    writer._thread.join(10)
    assert caplog.text.count("The metrics cannot be written") == 1


@pytest.mark.parametrize("room", [0, 4, 100, 700, 5000])
def test_a_full_disk_delays_numbers_and_damages_no_file(
    directory: Path, numbers: EngineNumbers, monkeypatch: pytest.MonkeyPatch, caplog: Any, room: int
) -> None:
    disk = FullDisk(room)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    writer = Writer()
    for _ in range(3):
        append(numbers)
        writer.write_or_log()
        shown(directory)  # no file is damaged
        assert all(path.stat().st_size for path in directory.glob("*.db"))
    assert caplog.text.count("No space left on device") == 1
    disk.room = 1 << 20
    writer.write()
    assert sums(shown(directory), "durable_streams_appends_total") == {(): 6}
    assert {path.suffix for path in directory.iterdir()} == {".db"}


class FullDisk:
    """Takes so many bytes in files that grow, as a disk does that is full then."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._pwrite = os.pwrite

    def pwrite(self, descriptor: int, data: bytes, position: int) -> int:
        grows = max(position + len(data) - os.fstat(descriptor).st_size, 0)
        taken = len(data) - max(grows - self.room, 0)
        if taken <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= min(grows, self.room)
        return self._pwrite(descriptor, data[:taken], position)


DAMAGED = [b"", b"\1", b"\0" * 7, b"\xff" * 64, b"\x40\0\0\0" + b"\0" * 4 + b"\x20\0\0\0" + b"not JSON" * 7]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_takes_no_other_metrics_away(
    directory: Path, numbers: EngineNumbers, caplog: Any, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WholeFilesCollector, "_failures", LogOnce(60.0))
    append(numbers)
    Writer().write()
    others = ["counter_1.db", "gauge_livesum_1-streams.db", "histogram_1-streams.db", f"summary_{os.getpid()}.db"]
    for name in others:
        (directory / name).write_bytes(content)
    registry = CollectorRegistry()
    WholeFilesCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    text = generate_latest(registry).decode()
    assert sums(text, "durable_streams_appends_total") == {(): 2}
    if "damaged" in caplog.text:
        assert all(name in caplog.text for name in others)


def test_a_file_that_cannot_be_read_takes_no_other_metrics_away(
    directory: Path, numbers: EngineNumbers, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WholeFilesCollector, "_failures", LogOnce(60.0))
    append(numbers)
    Writer().write()
    (directory / "counter_1.db").mkdir()
    registry = CollectorRegistry()
    WholeFilesCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    assert sums(generate_latest(registry).decode(), "durable_streams_appends_total") == {(): 2}
    assert "not shown: counter_1.db." in caplog.text


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_an_earlier_process_is_replaced(
    directory: Path, numbers: EngineNumbers, content: bytes
) -> None:
    for kind in ("counter", "histogram", "gauge_livesum"):
        (directory / f"{kind}_{os.getpid()}-streams.db").write_bytes(content)
    append(numbers)
    Writer().write()
    assert sums(shown(directory), "durable_streams_appends_total") == {(): 2}


def test_without_a_directory_the_project_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from django_durable_streams.contrib.prometheus.registration import register

    monkeypatch.setenv(multiprocess.DIRECTORY, str(tmp_path / "missing"))
    with pytest.raises(ImproperlyConfigured, match="is not a directory"):
        register.__wrapped__()
