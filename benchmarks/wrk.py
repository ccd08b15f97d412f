"""Runs wrk and reads its counts. Knows nothing of streams."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.outcome import MeasurementError

SCRIPTS = Path(__file__).resolve().parent / "lua"
# An answer that takes longer is an error of its own in wrk's count.
ANSWER_TIMEOUT_SECONDS = 10
GRACE_SECONDS = 30
MARK = "RESULT "


@dataclass(frozen=True)
class Counts:
    """One run of wrk. `errors` is in words, empty when every response was as it should be."""

    requests: int
    seconds: float
    bytes: int
    p50_ms: float
    p99_ms: float
    errors: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def version() -> str:
    """wrk prints its version with its usage, and then fails."""
    if shutil.which("wrk") is None:
        return "not installed"
    output = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    return " ".join((output.stdout + output.stderr).split()[1:2])


def run(
    script: str,
    url: str,
    arguments: Sequence[str],
    *,
    threads: int,
    connections: int,
    seconds: int,
) -> Counts:
    """Drives `url` with lua/<script>.lua for `seconds`; raises MeasurementError when wrk itself fails."""
    command = [
        *("wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s"),
        *("--timeout", f"{ANSWER_TIMEOUT_SECONDS}s", "-s", str(SCRIPTS / f"{script}.lua"), url, "--"),
        *arguments,
    ]
    environment = {**os.environ, "LUA_PATH": f"{SCRIPTS}/?.lua;;"}
    try:
        finished = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"wrk did not end within {seconds + GRACE_SECONDS} s") from None
    for line in finished.stdout.splitlines():
        if line.startswith(MARK):
            return _counts(json.loads(line.removeprefix(MARK)))
    raise MeasurementError(f"wrk ended with {finished.returncode}: {finished.stderr.strip()[-200:]}")


def _counts(raw: dict[str, int | str]) -> Counts:
    errors = [f"{raw[kind]} {kind} errors" for kind in ("connect", "read", "write", "timeout") if raw[kind]]
    if raw["status"]:
        errors.append(f"{raw['status']} responses with status 400 or above")
    if raw["wrong"]:
        errors.append(f"{raw['wrong']} responses other than 200, the first with {raw['first_wrong']}")
    if not raw["requests"]:
        errors.append("no request was answered")
    return Counts(
        requests=int(raw["requests"]),
        seconds=int(raw["microseconds"]) / 1e6,
        bytes=int(raw["bytes"]),
        p50_ms=int(raw["p50"]) / 1e3,
        p99_ms=int(raw["p99"]) / 1e3,
        errors=tuple(errors),
    )
