"""A throwaway PostgreSQL cluster from the installed binaries, as durable as PostgreSQL is by default."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

INSTALLED = Path("/usr/lib/postgresql")
SUPERUSER = "bench"
SETTINGS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
START_SECONDS = 30.0
STOP_SECONDS = 30.0


class PostgresError(Exception):
    """The cluster could not be made or started."""


def binaries() -> Path | None:
    """The directory of the newest installed PostgreSQL: Debian's place, else what is on the PATH."""
    versions = [path for path in INSTALLED.glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def version() -> str:
    directory = binaries()
    if directory is None:
        return "not installed"
    output = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=False)
    return output.stdout.split()[2] if output.returncode == 0 else "unknown"


class Cluster:
    """One server process on 127.0.0.1. PostgreSQL refuses to run as root; then it runs as another user."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._directory = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = _unprivileged()
            os.chown(self._directory, account.pw_uid, account.pw_gid)
            self._identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    @property
    def url(self) -> str:
        return f"postgres://{SUPERUSER}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The first process of the cluster, if it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        directory = binaries()
        if directory is None:
            raise PostgresError("PostgreSQL is not installed")
        data = self._directory / "data"
        made = subprocess.run(
            [directory / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C"],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
            **self._identity,
        )
        if made.returncode:
            raise PostgresError(f"initdb: {made.stderr.strip()[-300:]}")
        options = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(directory / "postgres"), "-D", str(data), "-p", str(self.port)),
                    *("-clisten_addresses=127.0.0.1", "-cunix_socket_directories="),
                    *options,
                ],
                cwd=self._directory,
                stdout=log,
                stderr=log,
                **self._identity,
            )
        deadline = time.monotonic() + START_SECONDS
        ready = [str(directory / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"did not start: {(self._directory / 'log').read_text()[-300:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            # SIGINT is PostgreSQL's fast shutdown: sessions are cut, nothing waits for them.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("no unprivileged user to run PostgreSQL as")
