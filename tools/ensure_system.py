"""Make sure that system programs are installed: `python3 tools/ensure_system.py node chromium`.

As root on Debian, it installs missing programs with apt-get. Otherwise one line names them, and the exit status is 1.
Uses the standard library only, since it runs before anything is installed.
"""

# An old Python must be able to run this file until it reports that it is too old.
from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MINIMUM_NODE = (20, 19)
MINIMUM_PYTHON = (3, 11)


@dataclass(frozen=True)
class Requirement:
    """One program: a function that finds it, its Debian packages, and its name for the error message."""

    find: Callable[[], Path | None]
    packages: tuple[str, ...]
    title: str


def binary(*names: str, folders: str = "") -> Callable[[], Path | None]:
    """The first of these binaries on PATH, in the system's folders, or in those matching a glob below /."""

    def find() -> Path | None:
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"])
        for name in names:
            if on_path := shutil.which(name, path=path):
                return Path(on_path)
            # Debian keeps one folder for each PostgreSQL version; the newest is wanted.
            candidates = Path("/").glob(f"{folders}/{name}") if folders else ()
            for candidate in sorted(candidates, key=_numbers, reverse=True):
                if os.access(candidate, os.X_OK):
                    return candidate
        return None

    return find


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def find_node() -> Path | None:
    node = binary("node", "nodejs")()
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return node if tuple(_numbers(Path(version))[:2]) >= MINIMUM_NODE else None


def find_python() -> Path | None:
    return Path(sys.executable) if sys.version_info >= MINIMUM_PYTHON else None


def find_venv() -> Path | None:
    # Debian splits ensurepip off; without it `python3 -m venv` makes an environment without pip.
    spec = importlib.util.find_spec("ensurepip")
    return Path(spec.origin) if spec and spec.origin else None


def find_python_header() -> Path | None:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return header if header.exists() else None


REQUIREMENTS = {
    # No package is named: one more Python would not change which one runs this.
    "python": Requirement(
        find_python,
        (),
        "Python {}.{} or newer; choose one with `make PYTHON=python3.x`".format(*MINIMUM_PYTHON),
    ),
    "venv": Requirement(
        find_venv,
        ("python{}.{}-venv".format(*sys.version_info),),
        "Python's venv module with ensurepip",
    ),
    "node": Requirement(find_node, ("nodejs",), "Node.js {}.{} or newer".format(*MINIMUM_NODE)),
    "npm": Requirement(binary("npm"), ("npm",), "npm"),
    # The shell has the same engine, and draws no window and no toolbar around each page.
    "chromium": Requirement(
        binary(
            "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"
        ),
        ("chromium-headless-shell",),
        "Chromium or Google Chrome",
    ),
    "firefox": Requirement(binary("firefox-esr", "firefox"), ("firefox-esr",), "Firefox"),
    "postgresql": Requirement(
        binary("postgres", folders="usr/lib/postgresql/*/bin"), ("postgresql",), "the PostgreSQL server"
    ),
    "mariadb-server": Requirement(
        binary("mariadbd", "mysqld"), ("mariadb-server", "mariadb-client"), "the MariaDB server"
    ),
    # The MySQL driver is compiled where it is installed.
    "compiler": Requirement(binary("cc", "gcc", "clang"), ("gcc", "libc6-dev"), "a C compiler"),
    "pkg-config": Requirement(binary("pkg-config", "pkgconf"), ("pkg-config",), "pkg-config"),
    "python-headers": Requirement(
        find_python_header, ("python{}.{}-dev".format(*sys.version_info),), "Python's C headers"
    ),
    "mysql-headers": Requirement(
        binary("mariadb_config", "mysql_config"), ("libmariadb-dev",), "the MariaDB client library with its headers"
    ),
    "redis-server": Requirement(binary("redis-server", "valkey-server"), ("redis-server",), "the Redis server"),
    "wrk": Requirement(binary("wrk"), ("wrk",), "wrk, a load generator"),
    # It finds the texts to translate.
    "gettext": Requirement(binary("xgettext"), ("gettext",), "gettext"),
    "nginx": Requirement(binary("nginx"), ("nginx",), "nginx"),
    "caddy": Requirement(binary("caddy"), ("caddy",), "Caddy"),
    "haproxy": Requirement(binary("haproxy"), ("haproxy",), "HAProxy"),
    "pgbouncer": Requirement(binary("pgbouncer"), ("pgbouncer",), "PgBouncer"),
    "systemd-analyze": Requirement(binary("systemd-analyze"), ("systemd",), "systemd-analyze"),
}


def locate(name: str) -> Path | None:
    """The path of a program's binary, or None where it is missing or too old."""
    return REQUIREMENTS[name].find()


def apt_install(packages: list[str]) -> None:
    # RUNLEVEL=1: a package must not start a service of its own on a port that somebody else may use.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    print(f"installing system packages with apt-get: {' '.join(packages)}", flush=True)
    for command in (
        # An update that fails for one foreign package source may still have served the others.
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            print(done.stdout.decode(errors="replace").strip(), file=sys.stderr, flush=True)


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in REQUIREMENTS]:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(REQUIREMENTS)}", file=sys.stderr)
        return 2

    missing = [name for name in names if locate(name) is None]
    packages = [package for name in missing for package in REQUIREMENTS[name].packages]
    if packages and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install(packages)
        importlib.invalidate_caches()
        missing = [name for name in missing if locate(name) is None]

    if missing:
        titles = ", ".join(REQUIREMENTS[name].title for name in missing)
        packages = [package for name in missing for package in REQUIREMENTS[name].packages]
        install = f"; Debian: apt-get install {' '.join(packages)}" if packages else ""
        print(f"missing: {titles}{install}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
