"""Print the Python to work with: `python3 tools/choose_python.py`. It is `python3`, or the system's if that is faster.

A Python that is compiled on the machine, as pyenv does it, is often built without optimizations. Then it takes up to
twice the time of the system's Python for everything, and so for all tests. The system's is taken only if it needs less
than three quarters of the time, and has what `make test` needs. One line on standard error says so.

Uses the standard library only, since it runs before anything is installed.
"""

# An old Python must be able to run this file.
from __future__ import annotations

import shutil
import subprocess
import sys

SYSTEM = "/usr/bin/python3"
OLDEST = (3, 11)
ENOUGH = 0.75
"""The share of the first one's time that the other one has to stay below. Less is not worth a surprise."""
TRIAL_SECONDS = 60

# The fastest of many short loops, which nothing else on the machine has interrupted.
TRIAL = """
import ensurepip, os, sys, sysconfig, time
def loop():
    begin = time.perf_counter()
    numbers = {}
    for number in range(3000):
        numbers[number] = str(number)
    return time.perf_counter() - begin
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print(sys.version_info[0], sys.version_info[1], int(headers), min(loop() for _ in range(100)))
"""


def try_out(python: str) -> tuple[tuple[int, int], float] | None:
    """Return the version of a Python and the seconds it takes, or None if it lacks what an environment needs."""
    try:
        done = subprocess.run([python, "-c", TRIAL], capture_output=True, text=True, check=True, timeout=TRIAL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, headers, seconds = done.stdout.split()
    return ((int(major), int(minor)), float(seconds)) if headers == "1" else None


def choose(first: str, system: str) -> str:
    """Return the first Python, or the system's if it is new enough, complete, and much faster."""
    tried, other = try_out(first), try_out(system)
    if tried is None or other is None or other[0] < OLDEST or other[1] >= ENOUGH * tried[1]:
        return first
    print(
        f"{system} takes {other[1] / tried[1]:.0%} of the time of {first}, so .venv is made with it."
        f" `make PYTHON={first}` takes the other one.",
        file=sys.stderr,
    )
    return system


if __name__ == "__main__":
    print(choose(shutil.which("python3") or "python3", SYSTEM))
