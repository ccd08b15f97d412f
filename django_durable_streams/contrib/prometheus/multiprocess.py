"""Multi-process mode: each process writes its numbers to files, and any of them shows the sums.

The mode is on if the environment has PROMETHEUS_MULTIPROC_DIR. The files are those of prometheus_client, in the same
directory, so every endpoint that serves its multi-process mode shows these metrics too. Their names differ from the
files of prometheus_client's own metrics (`identifier`), so that no file has two writers.

A thread writes once in INTERVAL, and when the engines stop. A process that is killed loses its last second. Its gauges
are removed when another process starts, or is scraped. Its counters stay, and a later process with the same id adds to
them. For Prometheus a counter that falls is a restart, and the sum of all processes would count anew.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from prometheus_client.utils import floatToGoString
from prometheus_client.values import MultiProcessValue

from ...runtime.counting import HistogramValue
from ...stats import process_stats
from .families import Family, Kind, families

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two writes."""

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
        self._reset()

    def _reset(self) -> None:
        self._lock = Lock()
        self._value_class: Any = None
        self._values: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._earlier: dict[tuple[str, tuple[str, ...]], float] = {}
        """What an earlier process with the same id has counted."""
        self._written: dict[tuple[str, tuple[str, ...]], float] = {}
        self._thread: Thread | None = None
        self._stopped = Event()

    def start(self, *_: object) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="durable-streams-metrics", daemon=True)
                self._thread.start()

    def write(self) -> None:
        """Write all numbers that have changed."""
        with self._lock:
            if self._value_class is None:
                _gauges().unlink(missing_ok=True)  # of an earlier process with the same id
                self._value_class = MultiProcessValue(identifier)  # type: ignore[no-untyped-call]
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
            for name, labels in list(self._values):
                if name == family.name and labels not in present:
                    self._set(family, name, labels, 0)  # such as the last live reader of a kind, which has left

    def _set(self, family: Family, name: str, labels: tuple[str, ...], number: float) -> None:
        key = name, labels
        if self._written.get(key) == number:
            return
        value = self._values.get(key)
        if value is None:
            names = family.labels if len(labels) == len(family.labels) else (*family.labels, "le")
            value = self._values[key] = self._value_class(
                family.kind.value, family.name, name, names, labels, family.help, GAUGE_MODE
            )
            self._earlier[key] = value.get()
        value.set(self._earlier[key] + number)
        self._written[key] = number

    def finish(self) -> None:
        """Write the last numbers. The process does not count as alive any more."""
        self._stopped.set()
        if self._value_class is not None:
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
        """Write as `write` does. After a failure, write no more."""
        try:
            self.write()
        except Exception:  # metrics must not end the thread, or a process
            logger.exception("The metrics cannot be written to %s.", os.environ.get(DIRECTORY))
            self._stopped.set()


def _gauges() -> Path:
    """Return the file with the gauges of this process."""
    return Path(os.environ[DIRECTORY], f"gauge_{GAUGE_MODE}_{identifier()}.db")


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
