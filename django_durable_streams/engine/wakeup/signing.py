"""What makes news believable: they are signed with the project's secret key, for one database.

Two deployments may share a Redis, and name and number everything alike. A message counts only where its sender had the
same database, by its identity, and a `SECRET_KEY` that the receiver knows. Others are as if they had never come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from hashlib import blake2b, sha256
from hmac import compare_digest
from threading import Lock, Thread

from django.conf import settings
from django.db import Error
from django.utils.encoding import force_bytes

from ...runtime.connection import DedicatedConnection
from ...store.database_identity import identity

logger = logging.getLogger(__name__)

SIGNATURE_BYTES = 16

WARNING_SECONDS = 60.0
"""Time between two warnings of messages that are not believed: there may be thousands."""


class MessageSigner:
    """Names the channels of a database, and signs and verifies what goes over them.

    Args:
        prefix: of the channels' names.
        scope: what else sets the project apart from others on the same Redis.
        database: the identity of the database.
    """

    def __init__(self, prefix: str, scope: str, database: str) -> None:
        self._channels = f"{prefix}:{sha256(f'{scope}:{database}'.encode()).hexdigest()[:16]}:".encode()
        purpose = b"django_durable_streams.wakeup " + database.encode()
        # Keyed BLAKE2 is a MAC as HMAC is, and takes a third of the time. The first key signs, each verifies.
        self._keys = [
            blake2b(purpose, key=sha256(force_bytes(secret)).digest(), digest_size=32).digest()
            for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        ]
        self._next_warning = 0.0

    def channel(self, stream_id: int) -> bytes:
        """Return the name of a stream's channel."""
        return b"%s%d" % (self._channels, stream_id)

    def stream_id(self, channel: bytes) -> int | None:
        """Return the stream whose channel it is; None: it is no channel of this database's."""
        number = channel.removeprefix(self._channels)
        return int(number) if len(number) < len(channel) and number.isdigit() and len(number) < 20 else None

    def sign(self, channel: bytes, payload: bytes) -> bytes:
        """Return a payload with its signature for a channel in front."""
        return _signature(self._keys[0], channel, payload) + payload

    def verify(self, channel: bytes, message: object) -> bytes | None:
        """Return the payload of a message that was signed for a channel; None: it was not, or by somebody else."""
        if isinstance(message, bytes):
            signature, payload = message[:SIGNATURE_BYTES], message[SIGNATURE_BYTES:]
            if any(compare_digest(signature, _signature(key, channel, payload)) for key in self._keys):
                return payload
        self.warn(channel, "is not signed by a process of this project")
        return None

    def warn(self, channel: bytes, reason: str) -> None:
        """Say, now and then, that messages are not believed."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_SECONDS
            logger.warning(
                "News are ignored: a message on %s %s. If another deployment uses a copy of this database and the "
                "same Redis, give the copy an identity of its own.",
                channel.decode("latin-1"),
                reason,
            )


def _signature(key: bytes, channel: bytes, payload: bytes) -> bytes:
    # A channel's name has no NUL in it.
    return blake2b(b"%s\0%s" % (channel, payload), key=key, digest_size=SIGNATURE_BYTES).digest()


class SignerLoader:
    """Makes the signer of a database once its identity is known.

    That is read over a connection of its own: the caller's may be in a transaction, or the caller in an event loop.

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
        """Return the signer, waiting for the database for some seconds at most; None where it does not answer."""
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
            logger.warning("The identity of the database cannot be read, so no news are sent or heard yet: %s", error)
        finally:
            connection.close()
