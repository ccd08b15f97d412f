"""Make a virtual environment and install packages into it: `python3 tools/install_packages.py .venv pytest`.

The first argument is the environment, the others are those of `pip install`. Without others, it is only made. An
environment whose Python does not run is made anew, as after an upgrade of the system's Python.

uv installs the packages, because it takes a tenth of pip's time. Where pip is configured to use another index, or where
uv fails, pip installs them. After an installation that did not end, all packages are installed again: a package may be
there in part, and installers look only at whether it is there. Two installations wait for each other.

Uses the standard library only, since it runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN_INDEX = ("index-url", "no-index")
"""Options of pip that say where packages come from. uv does not read pip's configuration."""
UNFINISHED = ".installing"
"""A file of the environment, there while packages are installed."""


def main(folder: str, arguments: list[str]) -> int:
    """Make the environment, install the packages, and return the exit status of the program that failed, or 0."""
    environment = Path(folder)
    with _alone_in(environment.parent):
        status = _make(environment)
        if status or not arguments:
            return status
        unfinished = environment / UNFINISHED
        again = unfinished.exists()
        unfinished.touch()
        status = _install(str(_python_of(environment)), arguments, again)
        if status == 0:
            unfinished.unlink()
        return status


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process makes environments in a folder, or installs into them."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make(environment: Path) -> int:
    python = _python_of(environment)
    if _runs(python, "import pip"):
        return 0
    if _runs(python, ""):
        return subprocess.run([python, "-m", "ensurepip", "--default-pip"], check=False, stdout=sys.stderr).returncode
    if python.is_symlink() or python.exists():
        print(f"{python} does not run, so {environment} is made anew", file=sys.stderr)
        return subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=False).returncode
    return subprocess.run([sys.executable, "-m", "venv", environment], check=False).returncode


def _python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def _runs(python: Path, code: str) -> bool:
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _install(python: str, arguments: list[str], again: bool) -> int:
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    install = ["install", "--quiet", *arguments]
    force = ["--force-reinstall"] if again else []
    configuration = subprocess.run([*pip, "config", "list"], check=False, capture_output=True, text=True).stdout
    if not any(option in configuration for option in OWN_INDEX):
        # Without a wheel for this machine, pip would compile uv for minutes.
        get_uv = [*pip, "install", "--quiet", "--only-binary", "uv", "-c", str(ROOT / "constraints.txt"), *force, "uv"]
        if subprocess.run(get_uv, check=False).returncode == 0:
            uv = [python, "-m", "uv", "pip", *install, "--python", python, *(["--reinstall"] if again else [])]
            if subprocess.run(uv, check=False).returncode == 0:
                return 0
            print("uv has failed, so pip installs the packages", file=sys.stderr)
    return subprocess.run([*pip, *install, *force], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
