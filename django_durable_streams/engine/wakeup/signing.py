"""Signatures of wake-up messages, with the project's secret key and the identity of the database.

Two deployments may share a Redis, with the same paths and stream ids. A message counts only if its sender had the same
database and a `SECRET_KEY` that the receiver has. All other messages are ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b, sha256
from hmac import compare_digest
from threading import Lock, Thread

from django.conf import settings
from django.db import Error
from django.utils.encoding import force_bytes

from ...runtime.connection import DedicatedConnection
from ...runtime.log_once import LogOnce
from ...store.database_identity import identity

logger = logging.getLogger(__name__)

SIGNATURE_BYTES = 16

WARNING_SECONDS = 60.0
"""Time between two warnings about ignored messages, of which there may be thousands."""


class MessageSigner:
    """Names the channels of a database, and signs and verifies their messages.

    Args:
        prefix: of the channels' names.
        scope: separates the project from others on the same Redis (see `Source`).
        database: the identity of the database.
    """

    def __init__(self, prefix: str, scope: str, database: str) -> None:
        self._channels = f"{prefix}:{sha256(f'{scope}:{database}'.encode()).hexdigest()[:16]}:".encode()
        purpose = b"django_durable_streams.wakeup " + database.encode()
        # Keyed BLAKE2 is a MAC like HMAC, in a third of the time. The first key signs; every key verifies.
        self._keys = [
            blake2b(purpose, key=sha256(force_bytes(secret)).digest(), digest_size=32).digest()
            for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ]
        self._warnings = LogOnce(WARNING_SECONDS)

    def channel(self, stream_id: int) -> bytes:
        """Return the name of a stream's channel."""
        return b"%s%d" % (self._channels, stream_id)

    def stream_id(self, channel: bytes) -> int | None:
        """Return the id of a channel's stream. None: the channel is not one of this database."""
        number = channel.removeprefix(self._channels)
        return int(number) if len(number) < len(channel) and number.isdigit() and len(number) < 20 else None

    def sign(self, channel: bytes, payload: bytes) -> bytes:
        """Return a payload, preceded by its signature for a channel."""
        return _signature(self._keys[0], channel, payload) + payload

    def verify(self, channel: bytes, message: object) -> bytes | None:
        """Return the payload of a message that was signed for a channel. None: the signature is missing or wrong."""
        if isinstance(message, bytes):
            signature, payload = message[:SIGNATURE_BYTES], message[SIGNATURE_BYTES:]
            if any(compare_digest(signature, _signature(key, channel, payload)) for key in self._keys):
                return payload
        self.warn(channel, "is not signed by a process of this project")
        return None

    def warn(self, channel: bytes, reason: str) -> None:
        """Log, once in a while, that a message is ignored."""
        if self._warnings.is_due():
            logger.warning(
                "A wake-up message on %s is ignored: it %s. If another deployment uses a copy of this database and the "
                "same Redis, give the copy an identity of its own: manage.py streams new-identity",
                channel.decode("latin-1"),
                reason,
            )


def _signature(key: bytes, channel: bytes, payload: bytes) -> bytes:
    # The NUL separates the two, because no channel's name contains one.
    return blake2b(b"%s\0%s" % (channel, payload), key=key, digest_size=SIGNATURE_BYTES).digest()


class SignerLoader:
    """Makes the signer of a database once the identity of the database was read.

    A thread reads it over a connection of its own, because the caller's connection may be in a transaction.

    Args:
        using: alias of the database.
        make: makes the signer.
    """

    def __init__(self, using: str, make: Callable[[str], MessageSigner]) -> None:
        self._using = using
        self._make = make
        self._signer: MessageSigner | None = None
        self._thread: Thread | None = None
        self._lock = Lock()

    def get(self, seconds: float) -> MessageSigner | None:
        """Return the signer. None: the database has not answered within some seconds."""
        if self._signer is None:
            with self._lock:
                thread = self._thread
                if thread is None or not thread.is_alive():
                    thread = self._thread = Thread(target=self._load, name="durable-streams-identity", daemon=True)
                    thread.start()
            thread.join(seconds)
        return self._signer

    def _load(self) -> None:
        connection = DedicatedConnection(self._using)
        try:
            connection.open()
            self._signer = self._make(identity(self._using))
        except Error as error:
            logger.warning(
                "The identity of the database cannot be read. Until then no wake-up messages are sent or read. (%s)",
                error,
            )
        finally:
            connection.close()
