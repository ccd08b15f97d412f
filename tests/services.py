"""Throwaway PostgreSQL, MariaDB, Redis and nginx for tests, from the programs that the system has.

    with PostgreSQL() as database:
        Server(database_url=database.new_database(), workers=4)

The databases do not wait for the disk. What they commit survives their own end, with SIGKILL too, since they hand it
to the system first; only the end of the system would lose it. Knows nothing of Django and of streams.
"""

import atexit
import contextlib
import functools
import itertools
import shutil
import socket
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tests.servers import HOST
from tests.service import START_SECONDS, Service, ServiceFailed

CONNECT_SECONDS = 2


class Database(Service):
    """A database server, with as many databases as tests want."""

    system_database: str

    prepare: ClassVar[Callable[["Database"], object]] = str
    """Called once with a server of each kind, to make databases that all later ones have from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)

    @abstractmethod
    def connect(self, name: str) -> Any:
        """Return a DB-API connection to a database, with autocommit."""

    def execute(self, statement: str) -> None:
        """Execute a statement outside of any database."""
        with contextlib.closing(self.connect(self.system_database)) as connection:
            connection.cursor().execute(statement)

    def _ping(self) -> None:
        self.execute("SELECT 1")

    def _set_up(self) -> None:
        self._run("cp", "-a", "--sparse=always", str(_new_data(type(self))), "data")

    @abstractmethod
    def _make_data(self) -> None:
        """Make the folder `data` of a new server."""

    def new_database(self, name: str = "") -> str:
        """Make an empty database and return its URL."""
        name = name or f"streams{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"

    @abstractmethod
    def new_copy(self, url: str) -> str:
        """Make a copy of a database to which nobody is connected, and return its URL."""


class PostgreSQL(Database):
    requirement = "postgresql"
    system_database = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}"

    def _make_data(self) -> None:
        initdb = str(self.program.resolve().with_name("initdb"))
        self._run(initdb, "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",  # the folder may be in memory
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(self.program), "-D", "data", "-p", str(self.port), *options]

    def new_copy(self, url: str) -> str:
        name = f"streams{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {name_of(url)}")
        return f"{self.url}/{name}"

    def connect(self, name: str) -> Any:
        import psycopg

        return psycopg.connect(f"{self.url}/{name}", autocommit=True, connect_timeout=CONNECT_SECONDS)

    def value(self, query: str) -> Any:
        """Return the one value of a query outside of any database."""
        with contextlib.closing(self.connect(self.system_database)) as connection:
            return connection.execute(query).fetchone()[0]


class Standby(PostgreSQL):
    """A standby of a PostgreSQL that runs. The primary confirms a commit when the standby has it on its disk, too."""

    def __init__(self, primary: PostgreSQL) -> None:
        super().__init__()
        self._primary = primary

    def _set_up(self) -> None:
        copy = str(self.program.resolve().with_name("pg_basebackup"))
        self._run(copy, "-d", f"{self._primary.url}/postgres", "-D", "data", "-R", "-c", "fast", "--no-sync")

    def synchronise(self) -> None:
        """Let the primary wait for this standby at each commit, from now on."""
        self._primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.execute("SELECT pg_reload_conf()")
        states = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        deadline = time.monotonic() + START_SECONDS
        while not self._primary.value(states):
            if time.monotonic() > deadline:
                raise ServiceFailed(f"the standby does not follow\n{self.log_tail()}")
            time.sleep(0.05)

    def promote(self) -> None:
        """Make it the primary. Returns when it takes changes."""
        assert self.value("SELECT pg_promote(true, 30)")

    def url_of_both(self, name: str) -> str:
        """Return the URL of a database by which clients find the server that takes changes."""
        ports = f"{self._primary.port},{self.port}"
        return f"postgresql://postgres@/{name}?host={HOST},{HOST}&port={ports}&target_session_attrs=read-write"


class MariaDB(Database):
    """MariaDB.

    max_allowed_packet: the longest statement. As MariaDB is installed, it is 16M.
    """

    requirement = "mariadb-server"
    system_database = "mysql"

    def __init__(self, max_allowed_packet: str = "64M") -> None:
        super().__init__()
        self._max_allowed_packet = max_allowed_packet

    @property
    def url(self) -> str:
        return f"mysql://streams:streams@{HOST}:{self.port}"

    def _make_data(self) -> None:
        install = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
        if install is None:
            raise ServiceFailed("mariadb-install-db is missing, though the MariaDB server is installed")
        self._run(install, "--no-defaults", f"--datadir={self.directory / 'data'}", "--skip-test-db")

    def _command(self) -> Sequence[str]:
        # Executed at each start.
        accounts = self.directory / "accounts.sql"
        accounts.write_text(
            "CREATE USER IF NOT EXISTS 'streams'@'%' IDENTIFIED BY 'streams';\nGRANT ALL ON *.* TO 'streams'@'%';\n"
        )
        settings = {
            "datadir": str(self.directory / "data"),
            # A server that starts removes the temporary tables of others from a folder that they share.
            "tmpdir": str(self.directory),
            "socket": "socket",
            "pid-file": "pid",
            "bind-address": HOST,
            "port": str(self.port),
            "init-file": str(accounts),
            "character-set-server": "utf8mb4",
            "innodb-flush-log-at-trx-commit": "2",
            "innodb-doublewrite": "0",  # guards against torn pages after a power cut
            "innodb-buffer-pool-size": "64M",
            "max-allowed-packet": self._max_allowed_packet,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.program), "--no-defaults", "--skip-name-resolve", *options]

    def new_copy(self, url: str) -> str:
        source, copy = name_of(url), self.new_database()
        with contextlib.closing(self.connect(name_of(copy))) as connection:
            cursor = connection.cursor()
            cursor.execute("SET foreign_key_checks = 0")
            cursor.execute(f"SHOW TABLES FROM {source}")
            for (table,) in cursor.fetchall():
                cursor.execute(f"SHOW CREATE TABLE {source}.{table}")
                cursor.execute(cursor.fetchone()[1])
                cursor.execute(f"INSERT INTO {table} SELECT * FROM {source}.{table}")
        return copy

    def connect(self, name: str) -> Any:
        import MySQLdb

        return MySQLdb.connect(
            host=HOST,
            port=self.port,
            user="streams",
            password="streams",
            database=name,
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )


@functools.cache
def _new_data(kind: type[Database]) -> Path:
    """The data of a new server. It is copied, because it takes two seconds of the processor to make."""
    maker = kind()
    atexit.register(maker.close)
    maker._make_data()
    maker._is_set_up = True
    Database.prepare(maker.start())
    maker.stop()
    return maker.directory / "data"


def name_of(url: str) -> str:
    """Return the name of the database that a URL names."""
    return url.rpartition("/")[2]


class Redis(Service):
    """Redis.

    password: what clients have to say.
    certificate: a file with the server's key and certificate, which is the authority too: then it speaks TLS only.
    follows: another one, whose replica it is.
    """

    requirement = "redis-server"

    def __init__(
        self, *, password: str | None = None, certificate: Path | None = None, follows: "Redis | None" = None
    ) -> None:
        super().__init__()
        self._password = password
        self._certificate = certificate
        self._follows = follows
        if certificate is not None:
            self._certificate = self.directory / "certificate.pem"
            shutil.copyfile(certificate, self._certificate)

    @property
    def url(self) -> str:
        scheme = "redis" if self._certificate is None else "rediss"
        user = f":{self._password}@" if self._password else ""
        trust = f"?ssl_ca_certs={self._certificate}" if self._certificate is not None else ""
        return f"{scheme}://{user}{HOST}:{self.port}/0{trust}"

    def _command(self) -> Sequence[str]:
        options = ["--bind", HOST, "--save", "", "--appendonly", "no"]
        if self._certificate is None:
            options += ["--port", str(self.port)]
        else:
            file = str(self._certificate)
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", file, "--tls-key-file", file, "--tls-ca-cert-file", file]
        if self._password:
            options += ["--requirepass", self._password, "--masterauth", self._password]
        if self._follows is not None:
            options += ["--replicaof", HOST, str(self._follows.port), "--repl-diskless-sync-delay", "0"]
        return [str(self.program), *options]

    def _ping(self) -> None:
        import redis

        with redis.Redis.from_url(self.url, socket_timeout=CONNECT_SECONDS) as client:
            client.ping()


class Nginx(Service):
    """nginx with one site.

    site: `server` and `upstream` blocks, which listen on `{port}`, and anything else of the context `http`. `{folder}`
        is a folder that nginx may write to.
    certificate: a file with a key and its certificate, which becomes `{folder}/certificate.pem`.
    """

    requirement = "nginx"

    def __init__(self, site: str, certificate: Path | None = None) -> None:
        super().__init__()
        self._site = site
        if certificate is not None:
            shutil.copyfile(certificate, self.directory / "certificate.pem")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _set_up(self) -> None:
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        lines = [
            "daemon off;",
            "pid nginx.pid;",
            "error_log stderr warn;",
            "worker_processes 1;",
            "events { worker_connections 8192; }",
            "http {",
            "access_log off;",
            *(f"{name}_temp_path {self.directory}/{name};" for name in temporary),
            self._site.replace("{port}", f"{HOST}:{self.port}").replace("{folder}", str(self.directory)),
            "}",
        ]
        (self.directory / "nginx.conf").write_text("\n".join([*lines, ""]))
        self._run(*self._command(), "-t")

    def _command(self) -> Sequence[str]:
        return [str(self.program), "-p", str(self.directory), "-c", "nginx.conf", "-e", "stderr"]

    def _ping(self) -> None:
        socket.create_connection((HOST, self.port), CONNECT_SECONDS).close()


S = TypeVar("S", bound=Service)


@functools.cache
def shared(kind: type[S]) -> S:
    """The service of a kind that all tests of a run use which do not break it."""
    service = kind()
    atexit.register(service.close)
    return service.start()
