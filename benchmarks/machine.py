"""Facts about a run: the machine, the versions, and the time of a commit to its disk."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

from benchmarks import postgres, wrk
from benchmarks.targets import REFERENCE

SYNC_SAMPLES = 200
PACKAGES = ("django", "uvicorn", "uvloop", "httptools", "channels", "msgspec", "psycopg")


def machine() -> dict[str, str]:
    return {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem of the data": _filesystem(Path(tempfile.gettempdir())),
        "write of 4 KB and fdatasync there": f"{_sync_milliseconds():.2f} ms (median of {SYNC_SAMPLES})",
        "load average before the run": f"{os.getloadavg()[0]:.2f}",
    }


def versions() -> dict[str, str]:
    versions_by_name = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions_by_name[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions_by_name[package] = "not installed"
    versions_by_name["SQLite"] = sqlite3.sqlite_version
    versions_by_name["PostgreSQL"] = postgres.version()
    versions_by_name["Node"] = _first_line(["node", "--version"]).removeprefix("v")
    versions_by_name["@durable-streams/server"] = _reference_version()
    versions_by_name["wrk"] = wrk.version()
    return versions_by_name


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    """Type and device of the mount that holds `directory`."""
    longest, description = -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4])
        if directory.resolve().is_relative_to(mount) and len(mount.parts) > longest:
            longest = len(mount.parts)
            kind, device = right.split()[:2]
            description = f"{kind} on {device.removeprefix('/dev/')}"
    return description


def _sync_milliseconds() -> float:
    samples = []
    with tempfile.NamedTemporaryFile(prefix="bench-sync-") as file:
        for _ in range(SYNC_SAMPLES):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            samples.append((time.perf_counter() - started) * 1e3)
    return statistics.median(samples)


def _first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    except OSError:
        return "not installed"


def _reference_version() -> str:
    lock = json.loads((REFERENCE / "package-lock.json").read_text())
    version: str = lock["packages"]["node_modules/@durable-streams/server"]["version"]
    return version
