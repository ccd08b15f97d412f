"""Multi-process mode: each process writes its numbers to files, and any of them shows the sums.

The mode is on if the environment has PROMETHEUS_MULTIPROC_DIR. The files are those of prometheus_client, in the same
directory, so every endpoint that serves its multi-process mode shows these metrics too. Their names differ from the
files of prometheus_client's own metrics (`identifier`), so that no file has two writers.

A thread writes once in INTERVAL, and when the engines stop. After a failure, such as on a full disk, the next write
makes up for it. A process that is killed loses its last second. Its gauges are removed when another process starts, or
is scraped. Its counters stay, and a later process with the same id adds to them. For Prometheus a counter that falls is
a restart, and the sum of all processes would count anew.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from pathlib import Path
from threading import Event, Lock, Thread

from prometheus_client.mmap_dict import mmap_key
from prometheus_client.utils import floatToGoString

from ...runtime.counting import HistogramValue
from ...runtime.log_once import LogOnce
from ...stats import process_stats
from .families import Family, Kind, families
from .value_files import ValueFile

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two writes."""

LOG_SECONDS = 60.0
"""Shortest time between two log messages about failed writes."""

SUFFIX = "-streams"
GAUGE_MODE = "livesum"

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def directory() -> str | None:
    """Return the directory of the files. None: the mode is off."""
    return os.environ.get(DIRECTORY) or None


def identifier() -> str:
    """Return the part of the files' names that tells this process and this writer from all others."""
    return f"{os.getpid()}{SUFFIX}"


class Writer:
    """Writes the numbers of this process. Safe to use from any thread, and after a fork."""

    def __init__(self) -> None:
        self._files: dict[str, ValueFile] = {}
        self._reset()

    def _reset(self) -> None:
        self._lock = Lock()
        self._close_files()
        self._keys: dict[tuple[str, tuple[str, ...]], str] = {}
        self._earlier: dict[str, dict[str, float]] = {}
        """What an earlier process with the same id has counted, by file."""
        self._failures = LogOnce(LOG_SECONDS)
        self._thread: Thread | None = None
        self._stopped = Event()

    def start(self, *_: object) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="durable-streams-metrics", daemon=True)
                self._thread.start()

    def write(self) -> None:
        """Write all numbers that have changed.

        Raises:
            OSError: they cannot be written now.
        """
        with self._lock:
            if any(file.is_removed() for file in self._files.values()):
                self._close_files()  # and write all numbers to new ones
            if not self._files:
                _gauges().unlink(missing_ok=True)  # of an earlier process with the same id
            for family in families(process_stats()):
                self._write(family)

    def _write(self, family: Family) -> None:
        for labels, value in family.series:
            if not isinstance(value, HistogramValue):
                self._set(family, f"{family.name}{'_total' if family.kind is Kind.COUNTER else ''}", labels, value)
                continue
            for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
                le: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
                self._set(family, f"{family.name}_bucket", (*labels, le), count)
            self._set(family, f"{family.name}_sum", labels, value.total)
        if family.kind is Kind.GAUGE:
            present = {labels for labels, _ in family.series}
            for name, labels in list(self._keys):
                if name == family.name and labels not in present:
                    self._set(family, name, labels, 0)  # such as the last live reader of a kind, which has left

    def _set(self, family: Family, name: str, labels: tuple[str, ...], number: float) -> None:
        key = name, labels
        if self._written.get(key) == number:
            return
        text = self._keys.get(key)
        if text is None:
            names = family.labels if len(labels) == len(family.labels) else (*family.labels, "le")
            text = self._keys[key] = mmap_key(family.name, name, list(names), list(labels), family.help)
        kind = f"gauge_{GAUGE_MODE}" if family.kind is Kind.GAUGE else family.kind.value
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = ValueFile(_path(kind))
            self._earlier.setdefault(kind, file.earlier)
        file.set(text, self._earlier[kind].get(text, 0.0) + number)
        self._written[key] = number

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._written: dict[tuple[str, tuple[str, ...]], float] = {}

    def finish(self) -> None:
        """Write the last numbers. The process does not count as alive any more."""
        self._stopped.set()
        if self._files:
            self.write_or_log()
            _gauges().unlink(missing_ok=True)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            remove_dead()
        while True:
            self.write_or_log()
            if self._stopped.wait(INTERVAL):
                return

    def write_or_log(self) -> None:
        """Write as `write` does, and log a failure. The next write makes up for it."""
        try:
            self.write()
        except Exception as error:  # metrics must not end the thread, or a process
            if self._failures.is_due():
                bug = None if isinstance(error, OSError) else error
                logger.error("The metrics cannot be written to %s: %s", directory(), error, exc_info=bug)


def _path(kind: str) -> Path:
    """Return the file of this process for a kind of numbers."""
    return Path(os.environ[DIRECTORY], f"{kind}_{identifier()}.db")


def _gauges() -> Path:
    """Return the file with the gauges of this process."""
    return _path(f"gauge_{GAUGE_MODE}")


writer = Writer()


def remove_dead() -> None:
    """Remove the gauges of processes that were killed. Their counters stay, because they have counted."""
    prefix = f"gauge_{GAUGE_MODE}_"
    for path in Path(os.environ[DIRECTORY]).glob(f"{prefix}*{SUFFIX}.db"):
        number = path.stem.removeprefix(prefix).removesuffix(SUFFIX)
        if number.isdigit() and not _is_alive(int(number)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    # In a container whose first process takes no care of others, a killed process stays as a zombie for ever.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


@atexit.register
def _finish() -> None:
    with contextlib.suppress(OSError):
        writer.finish()


os.register_at_fork(after_in_child=writer._reset)
