"""Signatures of wake-up messages, with the project's secret key, and the identity and the location of the database.

Two deployments may share a Redis, with the same paths and stream ids. A message counts only if its sender had the same
database and a `SECRET_KEY` that the receiver has. All other messages are ignored. The identity alone does not tell a
database from its copy, in which streams go on with other data at the same positions. The location does.

Messages also say when the server of the database was started. If that differs, the message is only a reason to query
the database: it comes from a copy of all files of the server, or the server was restarted a moment ago.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b, sha256
from hmac import compare_digest
from threading import Lock, Thread
from typing import NamedTuple

from django.conf import settings
from django.db import Error
from django.utils.encoding import force_bytes

from ...runtime.connection import DedicatedConnection
from ...runtime.log_once import LogOnce
from ...runtime.monitor import latest_connection
from ...runtime.printable import loggable
from ...store.database_identity import LocatedIdentity, located_identity

logger = logging.getLogger(__name__)

SIGNATURE_BYTES = 16
SERVER_BYTES = 8

WARNING_SECONDS = 60.0
"""Time between two warnings about ignored messages or an unknown database, of which there may be thousands."""

RELOAD_SECONDS = 60.0
"""Age from which a signer that is used is loaded again."""

UNKNOWN_DATABASE = "The identity of the database cannot be read. Until then no wake-up messages are sent or read."


class MessageSigner:
    """Names the channels of a database, and signs and verifies their messages.

    Args:
        prefix: of the channels' names.
        scope: separates the project from others on the same Redis (see `Source`).
        database: the identity and the location of the database.
        server_start: when its server was started, if that is known.
    """

    def __init__(self, prefix: str, scope: str, database: str, server_start: str = "") -> None:
        self._channels = f"{prefix}:{sha256(f'{scope}:{database}'.encode()).hexdigest()[:16]}:".encode()
        purpose = b"django_durable_streams.wakeup " + database.encode()
        # Keyed BLAKE2 is a MAC like HMAC, in a third of the time. The first key signs; every key verifies.
        self._keys = [
            blake2b(purpose, key=sha256(force_bytes(secret)).digest(), digest_size=32).digest()
            for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ]
        self._server = blake2b(server_start.encode(), digest_size=SERVER_BYTES).digest()
        self._warnings = LogOnce(WARNING_SECONDS)

    def channel(self, stream_id: int) -> bytes:
        """Return the name of a stream's channel."""
        return b"%s%d" % (self._channels, stream_id)

    def stream_id(self, channel: bytes) -> int | None:
        """Return the id of a channel's stream. None: the channel is not one of this database."""
        number = channel.removeprefix(self._channels)
        return int(number) if len(number) < len(channel) and number.isdigit() and len(number) < 20 else None

    def sign(self, channel: bytes, payload: bytes) -> bytes:
        """Return a payload as a message: its signature for a channel, the server, and the payload."""
        content = self._server + payload
        return _signature(self._keys[0], channel, content) + content

    def verify(self, channel: bytes, message: object) -> bytes | None:
        """Return the payload of a message that was signed for a channel. None: the signature is missing or wrong."""
        if isinstance(message, bytes):
            signature, content = message[:SIGNATURE_BYTES], message[SIGNATURE_BYTES:]
            if any(compare_digest(signature, _signature(key, channel, content)) for key in self._keys):
                return content[SERVER_BYTES:]
        self.warn(
            channel,
            "is not signed with the SECRET_KEY of this process. Give all processes of the project the same SECRET_KEY, "
            "or list the other one in SECRET_KEY_FALLBACKS. If another deployment uses a copy of this database server "
            "and the same Redis, give the copied database an identity of its own: manage.py streams new-identity",
        )
        return None

    def has_sender_at_this_server(self, message: bytes) -> bool:
        """Return whether the sender of a valid message was connected to the same database server, since its start."""
        return message[SIGNATURE_BYTES:][:SERVER_BYTES] == self._server

    def warn(self, channel: bytes, reason: str) -> None:
        """Log, once in a while, that a message is ignored."""
        if self._warnings.is_due():
            logger.warning("A wake-up message on %s is ignored: it %s", loggable(channel.decode("latin-1")), reason)


def _signature(key: bytes, channel: bytes, payload: bytes) -> bytes:
    # The NUL separates the two, because no channel's name contains one.
    return blake2b(b"%s\0%s" % (channel, payload), key=key, digest_size=SIGNATURE_BYTES).digest()


class _Loaded(NamedTuple):
    database: LocatedIdentity
    signer: MessageSigner
    connection: object
    """The latest connection of the process when the database was asked."""


class SignerLoader:
    """Makes the signer of a database once the identity and the location of the database were read.

    A thread reads them over a connection of its own, because the caller's connection may be in a transaction. They are
    read again after each new connection of the engine, which may lead to another server, and now and then: behind a
    proxy, and in a process without an engine, nothing tells that the server is another one.

    Args:
        using: alias of the database.
        make: makes the signer.
    """

    def __init__(self, using: str, make: Callable[[str, str], MessageSigner]) -> None:
        self._using = using
        self._make = make
        self._loaded: _Loaded | None = None
        self._began = 0.0
        self._failures = 0
        self._thread: Thread | None = None
        self._lock = Lock()
        self._warnings = LogOnce(WARNING_SECONDS)

    def is_current(self, signer: MessageSigner) -> bool:
        """Return whether a signer is that of the database to which this process is connected, as far as it knows."""
        return self._current() is signer

    def prepare(self) -> None:
        """Begin to load the first signer. Later the process may be about to end, and then starts no thread.

        Raises:
            RuntimeError: no thread can start.
        """
        if self._loaded is None and self._thread is None:
            self._start()

    def get(self, seconds: float) -> MessageSigner | None:
        """Return the current signer. None: the database has not answered within some seconds."""
        deadline = time.monotonic() + seconds
        while (signer := self._current()) is None:
            failures = self._failures
            thread = self._start()
            thread.join(max(deadline - time.monotonic(), 0.0))
            if thread.is_alive() or self._failures > failures or time.monotonic() >= deadline:
                return self._current()
        return signer

    def _current(self) -> MessageSigner | None:
        loaded, latest = self._loaded, latest_connection(self._using)
        # Without a latest connection the engine has ended, and its last messages are sent.
        if loaded is None or (latest is not None and latest is not loaded.connection):
            return None
        if time.monotonic() - self._began > RELOAD_SECONDS:
            with suppress(RuntimeError):  # no thread can start
                self._start()  # nobody waits for it
        return loaded.signer

    def _start(self) -> Thread:
        with self._lock:
            thread = self._thread
            self._began = time.monotonic()
            if thread is None or not thread.is_alive():
                thread = self._thread = Thread(target=self._load, name="durable-streams-identity", daemon=True)
                thread.start()
            return thread

    def _load(self) -> None:
        latest = latest_connection(self._using)  # before this one, so that no later one is missed
        connection = DedicatedConnection(self._using)
        try:
            with connection:  # forks wait for it
                connection.open()
                database = located_identity(self._using)
            earlier = self._loaded
            is_same = earlier is not None and earlier.database == database
            signer = earlier.signer if earlier is not None and is_same else self._make(*database)
            self._loaded = _Loaded(database, signer, latest)
        except BaseException as error:  # receivers of signals and wrappers of statements belong to the project
            self._failures += 1
            if self._current() is None:
                self._warn(error)
        finally:
            connection.close()

    def _warn(self, error: BaseException) -> None:
        """Log, once in a while, that the database is unknown: while it is away, each message tries to read it."""
        if self._warnings.is_due():
            logger.warning("%s (%s)", UNKNOWN_DATABASE, error, exc_info=None if isinstance(error, Error) else error)
