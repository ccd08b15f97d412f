"""The measured servers: how to start each one, reach it and stop it."""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from benchmarks.client import Address
from benchmarks.postgres import Cluster, PostgresError

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path(__file__).resolve().parent / "reference"
STREAMS = "/v1/stream"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
INSTALL_SECONDS = 300
# Characters of a log that an error message quotes.
LOG_TAIL = 600


# Variables of the example project that it must not inherit from the caller's environment.
OWN_VARIABLES = ("REDIS_URL", "EXAMPLE_DOOR", "LONG_POLL_TIMEOUT", "PERMISSION", "DEBUG", "LOG_LEVEL")


class TargetError(Exception):
    """A server could not be started."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Target(ABC):
    """One column of the table. `start` returns the address of its streams, and `stop` removes everything.

    A target that `outlives_the_run` is not removed. Its streams are deleted one by one instead.
    """

    outlives_the_run = False

    def __init__(self, key: str, title: str) -> None:
        self.key = key
        self.title = title
        self.warnings: list[str] = []

    @property
    def pid(self) -> int | None:
        return None

    @property
    def project(self) -> Mapping[str, str]:
        """The environment of the Django project behind the running server. Empty for other servers."""
        return {}

    @abstractmethod
    def start(self) -> Address: ...

    @abstractmethod
    def stop(self) -> None: ...


class Running(Target):
    """A server that runs already, and that stays running."""

    outlives_the_run = True

    def __init__(self, key: str, url: str) -> None:
        super().__init__(key, key)
        self.address = Address.parse(url)

    def start(self) -> Address:
        return self.address

    def stop(self) -> None:
        pass


class Process(Target):
    """A server process that this run starts, on a free port, with a fresh directory for its data."""

    root = ROOT
    """The directory that the server is started in."""

    def __init__(self, key: str, title: str) -> None:
        super().__init__(key, title)
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @abstractmethod
    def command(self, port: int, directory: Path) -> list[str]: ...

    def environment(self, directory: Path) -> dict[str, str]:
        return dict(os.environ)

    def prepare(self, directory: Path) -> None:
        """Prepare the directory and services before the server starts."""

    def clean_up(self) -> None:
        """Remove services after the server has ended."""

    def start(self) -> Address:
        self._directory = Path(tempfile.mkdtemp(prefix=f"bench-{self.key}-"))
        try:
            self.prepare(self._directory)
            port = free_port()
            log = self._directory / "server.log"
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    self.command(port, self._directory),
                    cwd=self.root,
                    env=self.environment(self._directory),
                    stdout=output,
                    stderr=output,
                )
            self._wait(port, log)
        except BaseException:
            self.stop()
            raise
        return Address("127.0.0.1", port, STREAMS)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.warnings.append(f"{self.title} did not end within {STOP_SECONDS:g} s of SIGTERM")
                self._process.kill()
                self._process.wait()
            self._process = None
        self.clean_up()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _wait(self, port: int, log: Path) -> None:
        """Wait for any response. A 404 for a missing stream is enough."""
        if not wait_for_answer(port, self._process):
            raise TargetError(f"{self.title} did not start: {log.read_text(errors='replace')[-LOG_TAIL:]}")


def wait_for_answer(port: int, process: subprocess.Popen[bytes] | None) -> bool:
    """Wait until a server answers. Return False if its process ends, or it takes longer than START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", f"{STREAMS}/ready")
            connection.getresponse().read()
            return True
        except (OSError, http.client.HTTPException):
            ended = process is None or process.poll() is not None
            if ended or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        finally:
            connection.close()


def uvicorn(port: int, app_dir: Path, application: str) -> list[str]:
    """One command line for this server and for the ceiling, so that only the application differs."""
    return [
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(app_dir), application),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]


class Ceiling(Process):
    def command(self, port: int, directory: Path) -> list[str]:
        return uvicorn(port, ROOT, "benchmarks.ceiling:application")


class Reference(Process):
    """The reference server, in memory or file-backed."""

    def __init__(self, key: str, title: str, *, durable: bool) -> None:
        super().__init__(key, title)
        self.durable = durable

    def prepare(self, directory: Path) -> None:
        install_reference()

    def command(self, port: int, directory: Path) -> list[str]:
        store = [str(directory / "streams")] if self.durable else []
        return ["node", str(REFERENCE / "server.mjs"), str(port), *store]

    def environment(self, directory: Path) -> dict[str, str]:
        return {**os.environ, "NODE_ENV": "production"}


class Electric(Process):
    """Electric's Rust server with its write-ahead log: an append is answered after the fdatasync of its group commit.

    `ELECTRIC_SERVER` is the path of the built program. `ELECTRIC_FLAGS` is added to its flags.
    """

    FLAGS = ("--host", "127.0.0.1", "--durability", "wal")

    def prepare(self, directory: Path) -> None:
        program = os.environ.get("ELECTRIC_SERVER", "")
        if shutil.which(program) is None:
            raise TargetError(
                f"ELECTRIC_SERVER names no program: {program!r}. Build Electric's server, and set its path."
            )

    def command(self, port: int, directory: Path) -> list[str]:
        own = ["--port", str(port), "--data-dir", str(directory / "streams")]
        return [os.environ["ELECTRIC_SERVER"], *self.FLAGS, *own, *shlex.split(os.environ.get("ELECTRIC_FLAGS", ""))]


class Ours(Process):
    """The example project on an empty SQLite file, migrated.

    root: the checkout whose example project and package are used.
    """

    def __init__(self, key: str, title: str, root: Path = ROOT) -> None:
        super().__init__(key, title)
        self.root = root

    def database_url(self, directory: Path) -> str:
        return f"sqlite:///{directory / 'bench.sqlite3'}"

    @property
    def project(self) -> Mapping[str, str]:
        return self.environment(self._directory) if self._directory is not None else {}

    def environment(self, directory: Path) -> dict[str, str]:
        environment = {
            **os.environ,
            "DATABASE_URL": self.database_url(directory),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONPATH": os.pathsep.join([str(self.root / "example_project"), str(self.root)]),
        }
        for name in OWN_VARIABLES:
            environment.pop(name, None)
        return environment

    def prepare(self, directory: Path) -> None:
        migrated = subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
            cwd=self.root,
            env=self.environment(directory),
            capture_output=True,
            text=True,
            timeout=START_SECONDS * 2,
            check=False,
        )
        if migrated.returncode:
            raise TargetError(f"migrate: {migrated.stderr.strip()[-LOG_TAIL:]}")

    def command(self, port: int, directory: Path) -> list[str]:
        return uvicorn(port, self.root / "example_project", "config.asgi:application")


class OursOnPostgres(Ours):
    """The example project on a PostgreSQL cluster of its own."""

    def __init__(self, key: str, title: str) -> None:
        super().__init__(key, title)
        self._cluster: Cluster | None = None

    def database_url(self, directory: Path) -> str:
        assert self._cluster is not None
        return self._cluster.url

    def prepare(self, directory: Path) -> None:
        self._cluster = Cluster(free_port())
        try:
            self._cluster.start()
        except PostgresError as error:
            raise TargetError(str(error)) from error
        super().prepare(directory)

    def clean_up(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster = None


def install_reference() -> None:
    """Install the packages of the lock file, if they are not installed already."""
    installed = REFERENCE / "node_modules" / ".package-lock.json"
    lock = REFERENCE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    done = subprocess.run(
        ["npm", "ci"], cwd=REFERENCE, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode:
        raise TargetError(f"npm ci: {done.stderr.strip()[-LOG_TAIL:]}")


SQLITE, POSTGRESQL, MEMORY, FILE, CEILING = "sqlite", "postgresql", "memory", "file", "ceiling"
ELECTRIC = "electric"
DEFAULT = (SQLITE, POSTGRESQL, MEMORY, FILE, CEILING)
ALL = (*DEFAULT, ELECTRIC)


def make(key: str) -> Target:
    match key:
        case "sqlite":
            return Ours(key, "ours, SQLite")
        case "postgresql":
            return OursOnPostgres(key, "ours, PostgreSQL")
        case "memory":
            return Reference(key, "reference, memory", durable=False)
        case "file":
            return Reference(key, "reference, files", durable=True)
        case "ceiling":
            return Ceiling(key, "ceiling")
        case "electric":
            return Electric(key, "Electric, WAL")
    raise ValueError(f"no target {key!r}; there are {', '.join(ALL)}")
