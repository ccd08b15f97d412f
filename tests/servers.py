"""Real servers for tests: the example project under each program that serves ASGI, as a subprocess.

    with Server("granian", entry_point="asgi", workers=2) as server:
        httpx.put(f"{server.base_url}/v1/stream/a")

Knows how to start, await and end a server. Knows nothing of the protocol.
"""

import atexit
import contextlib
import functools
import http.client
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests import preloaded
from tests.memory import folder_in_memory

Kind = Literal["uvicorn", "daphne", "granian", "hypercorn", "gunicorn"]
EntryPoint = Literal["asgi", "urls"]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "example_project"
APPLICATION = "config.asgi:application"
HOST = "127.0.0.1"

START_SECONDS = 60.0
STOP_SECONDS = 10.0
MIGRATE_SECONDS = 300.0
# What a server grants its open connections after SIGTERM: less than this module grants the server.
GRACE_SECONDS = 3
# Below the range from which the system takes the ports of outgoing connections: a port that was free when
# it was chosen cannot be taken by some client before the server, or a restarted server, binds it.
PORTS = range(20_000, 32_000)

# What a server must not inherit from the test run: it would depend on who started the tests.
OWN_VARIABLES = (
    "ALLOWED_HOSTS",
    "DATABASE_URL",
    "DEBUG",
    "EXAMPLE_DOOR",
    "LONG_POLL_TIMEOUT",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL",
    "PERMISSION",
    "PUBLIC_URL",
    "REDIS_URL",
    "TOKENS_PER_SECOND",
)


class ServerFailed(Exception):
    """The server did not start. The message ends with the last lines of its log."""


class Server:
    """One server process on a free port of 127.0.0.1, with a database of its own unless it is given one.

    kind: the program that serves.
    entry_point: whether the protocol is served by the bare ASGI application or by Django's views.
    workers: how many processes serve; daphne can only be one.
    long_poll_timeout: seconds.
    database_url: an existing, empty or migrated database; default: a fresh SQLite file.
    migrated: whether that database is known to be migrated, which saves the time to find out.
    certificate: a file with a private key and its certificate: the server speaks TLS.
    env: further environment variables, such as REDIS_URL; they win over all others.

    After `kill` or `stop`, `start` brings the server back on the same port and the same database.
    """

    def __init__(
        self,
        kind: Kind = "uvicorn",
        *,
        entry_point: EntryPoint = "asgi",
        workers: int = 1,
        long_poll_timeout: float = 0.5,
        database_url: str | None = None,
        migrated: bool = False,
        certificate: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if kind == "daphne" and workers != 1:
            raise ValueError("daphne has no workers")
        self.kind = kind
        self.workers = workers
        self.port = free_port()
        self.certificate = certificate
        self.base_url = f"{'https' if certificate else 'http'}://{HOST}:{self.port}"
        self.process: preloaded.Process | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="durable-streams-", dir=folder_in_memory())
        self.directory = Path(self._folder.name)
        self.log_path = self.directory / "server.log"
        self.database_url = database_url or f"sqlite:///{self.directory / 'db.sqlite3'}"
        self._own_database = database_url is None
        self._migrated = migrated
        self.env = example_environment(
            {
                "DATABASE_URL": self.database_url,
                "EXAMPLE_DOOR": entry_point,
                "LONG_POLL_TIMEOUT": str(long_poll_timeout),
                **(env or {}),
            }
        )

    @property
    def pid(self) -> int:
        """The process that was started: with several workers, their parent."""
        if self.process is None:
            raise RuntimeError("the server is not running")
        return self.process.pid

    def start(self) -> Self:
        """Start the server and return once it answers HTTP. Raises ServerFailed."""
        if self.process is not None:
            raise RuntimeError("the server is already running")
        self._prepare_database()
        with self.log_path.open("ab") as log:
            # In a group of its own, so that `kill` also reaches the workers.
            self.process = preloaded.start(self._command(), cwd=EXAMPLE, env=self.env, output=log.fileno())
        atexit.register(self.kill)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> int:
        """End the server with SIGTERM, as an operator would. Returns the exit status: -9 if that failed."""
        if self.process is None:
            return 0
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        return self.kill()

    def kill(self) -> int:
        """End the server and its workers at once, with SIGKILL. Returns the exit status."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        atexit.unregister(self.kill)
        # Also where the parent has ended already: a worker may have outlived it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def close(self) -> None:
        """Stop the server and remove its directory."""
        self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._folder.cleanup()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def log_tail(self, lines: int = 40) -> str:
        """The last lines that the server wrote."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _prepare_database(self) -> None:
        if self._migrated:
            return
        if self._own_database:
            shutil.copyfile(migrated_sqlite_file(), self.directory / "db.sqlite3")
        else:
            migrate(self.env)
        self._migrated = True

    def _command(self) -> list[str]:
        port, workers, tls = str(self.port), str(self.workers), self.certificate
        python = [sys.executable, "-m", self.kind]
        match self.kind:
            case "uvicorn":
                options = ["--host", HOST, "--port", port, "--workers", workers, "--log-level", "warning"]
                options += ["--timeout-graceful-shutdown", str(GRACE_SECONDS)]
                options += ["--ssl-certfile", str(tls), "--ssl-keyfile", str(tls)] if tls else []
                return [*python, "--app-dir", str(EXAMPLE), *options, APPLICATION]
            case "daphne":
                address = ["-e", f"ssl:{port}:interface={HOST}:privateKey={tls}:certKey={tls}"]
                return [*python, *(address if tls else ["-b", HOST, "-p", port]), "-v", "0", APPLICATION]
            case "granian":
                options = ["--host", HOST, "--port", port, "--workers", workers, "--log-level", "warning"]
                options += ["--workers-kill-timeout", str(GRACE_SECONDS)]
                options += ["--ssl-certificate", str(tls), "--ssl-keyfile", str(tls)] if tls else []
                return [*python, "--interface", "asgi", *options, APPLICATION]
            case "hypercorn":
                options = ["--bind", f"{HOST}:{port}", "--workers", workers, "--log-level", "warning"]
                options += ["--certfile", str(tls), "--keyfile", str(tls)] if tls else []
                return [*python, *options, "--graceful-timeout", str(GRACE_SECONDS), APPLICATION]
            case "gunicorn":
                options = ["--worker-class", "uvicorn_worker.UvicornWorker", "--chdir", str(EXAMPLE)]
                options += ["--bind", f"{HOST}:{port}", "--workers", workers, "--log-level", "warning"]
                options += ["--certfile", str(tls), "--keyfile", str(tls)] if tls else []
                return [*python, *options, "--graceful-timeout", str(GRACE_SECONDS), APPLICATION]

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                raise ServerFailed(f"{self.kind} ended with status {status}\n{self.log_tail()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise ServerFailed(f"{self.kind} did not answer within {START_SECONDS:.0f} s\n{self.log_tail()}")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        if self.certificate is not None:
            context = ssl.create_default_context(cafile=self.certificate)
            connection = http.client.HTTPSConnection(HOST, self.port, timeout=5, context=context)
        try:
            # Any answer will do: whether it is the right one is for the tests to say.
            connection.request("HEAD", "/v1/stream/is-anybody-there")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return True


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise RuntimeError(f"no free port among 50 of {PORTS}")


def example_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of the example project, without what configures this one."""
    inherited = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
    return {
        **inherited,
        # pytest-django has put the tests' own settings here.
        "DJANGO_SETTINGS_MODULE": "tests.serving_settings",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


def migrate(env: Mapping[str, str]) -> None:
    """Run the example project's migrations on the database that this environment names."""
    command = [sys.executable, str(EXAMPLE / "manage.py"), "migrate", "--verbosity", "0"]
    done = preloaded.run(command, cwd=EXAMPLE, env=env, timeout=MIGRATE_SECONDS)
    if done.returncode != 0:
        raise ServerFailed(f"migrate ended with status {done.returncode}\n{done.stdout}{done.stderr}")


@functools.cache
def migrated_sqlite_file() -> Path:
    """A migrated, empty database to copy, made once in a test run."""
    folder = tempfile.TemporaryDirectory(prefix="durable-streams-template-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "db.sqlite3"
    migrate(example_environment({"DATABASE_URL": f"sqlite:///{path}"}))
    return path
