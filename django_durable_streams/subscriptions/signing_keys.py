"""The keys that sign webhooks: Ed25519, one active key for each database (specification, sections 6.5 and 7.1).

All processes share the keys of the database, so a restart changes nothing. A new key is published before it signs, and
an old one for as long as receivers accept its signatures. So no receiver meets a signature whose key it cannot find.
Private keys are encrypted with WEBHOOK_KEY_SECRET, where it is set.

Each function is one short transaction. Publishing keys needs no optional package; making them and signing does.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from django.db import IntegrityError
from django.db.models import Max, Q, QuerySet

from .. import clock
from ..conf import config
from ..models.signing_key import SigningKey
from ..protocol.errors import ServiceUnavailable
from ..runtime.caller_transaction import atomic
from . import extra
from .rows import transaction

if TYPE_CHECKING:
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REPLAY_SECONDS = 300
"""The age up to which receivers should accept a signature."""

CACHE_SECONDS = 300
"""For how long caches and receivers may keep the published keys."""

HEAD_START_SECONDS = CACHE_SECONDS + 60
"""For how long a new key is published before it signs: until caches have it, also those of slow requests."""

PUBLISHED_SECONDS = 3600
"""For how long a retired key stays published. It covers the replay window, caches, slow requests, and clocks that
differ."""

_PLAIN, _ENCRYPTED = "plain:", "fernet:"


class SigningKeyError(ServiceUnavailable):
    """The private key cannot be used. The message says why and what to do."""

    title = "Signing key cannot be used"


def active_key(using: str) -> SigningKey:
    """Return the key that signs now. The first call makes it; processes that do so at the same time agree.

    Raises:
        SubscriptionError: there is no key, and packages to make one are missing.
        ServiceUnavailable: the caller's transaction cannot see the key that another process has just made.
    """
    key = _active(using)
    if key is None:
        extra.require()
        _insert_first(using)
        key = _active(using)
    if key is None:
        raise ServiceUnavailable("Another process has just made the signing key. Try again.")
    return key


def sign(body: bytes, now: datetime, key: SigningKey) -> str:
    """Return the value of the header `Webhook-Signature`.

    Args:
        body: the exact body of the request.
        now: the present time, aware.
        key: the active key.

    Raises:
        SigningKeyError: the private key cannot be decrypted.
    """
    seconds = int(now.timestamp())
    signature = _private_key(key.private_key, config().webhook_key_secret).sign(b"%d." % seconds + body)
    return f"t={seconds},kid={key.kid},ed25519={_base64url(signature)}"


def jwks(using: str) -> bytes:
    """Return the JSON Web Key Set: the public keys of all signatures that receivers may have to check.

    It has a key before the first webhook is sent, because caches may keep an empty set.
    """
    if extra.is_installed():
        active_key(using)
    published = clock.now() - timedelta(seconds=PUBLISHED_SECONDS)
    keys = SigningKey.objects.using(using).filter(_is_unretired_at(published)).order_by("number")
    return msgspec.json.encode({"keys": [_jwk(key) for key in keys]})


def rotate(using: str, *, revoke: bool = False) -> SigningKey:
    """Make a new key and return it. It signs as soon as caches of the published keys have it.

    Until then the active key signs, and then it is retired. Keys that nobody needs any more are deleted.

    Args:
        using: alias of the database.
        revoke: whether the existing keys are deleted now, because somebody else may have one. The new key signs at
            once. Receivers refuse what the old keys have signed.

    Raises:
        SubscriptionError: packages are missing.
        ServiceUnavailable: another process has rotated the keys at the same time.
    """
    extra.require()
    now = clock.now()
    with atomic(using):
        key = _new_key(_last_number(using) + 1, now)
        try:
            with atomic(using):
                _rows(using).bulk_create([key])
        except IntegrityError as error:
            raise ServiceUnavailable(
                "Another process has just rotated the signing keys. Look at them first."
            ) from error
        earlier = _rows(using).filter(number__lt=key.number)
        if revoke:
            earlier.delete()
        else:
            earlier.filter(retired_at__isnull=True).update(retired_at=now + timedelta(seconds=HEAD_START_SECONDS))
            earlier.filter(retired_at__lt=now - timedelta(seconds=PUBLISHED_SECONDS)).delete()
    return key


def _rows(using: str) -> QuerySet[SigningKey]:
    """Return all keys, as a queryset that can write."""
    return SigningKey.objects.using(using).unguarded()


def _active(using: str) -> SigningKey | None:
    keys = SigningKey.objects.using(using).filter(_is_unretired_at(clock.now()))
    return keys.order_by("number").first()


def _is_unretired_at(moment: datetime) -> Q:
    return Q(retired_at__isnull=True) | Q(retired_at__gt=moment)


def _last_number(using: str) -> int:
    return _rows(using).aggregate(last=Max("number"))["last"] or 0


def _insert_first(using: str) -> None:
    """Insert a key while none is active, unless another process inserts it first."""
    with transaction(using):
        number = _last_number(using) + 1  # a key that another process inserts from now on takes this number, too
        if _active(using) is None:
            _rows(using).bulk_create([_new_key(number, clock.now())], ignore_conflicts=True)


def _new_key(number: int, now: datetime) -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = _base64url(private.public_key().public_bytes_raw())
    return SigningKey(
        number=number,
        kid=f"ds_{thumbprint(public)}",
        public_key=public,
        private_key=_sealed(private.private_bytes_raw(), config().webhook_key_secret),
        created_at=now,
    )


def thumbprint(public_key: str) -> str:
    """Return the thumbprint of the JWK of an Ed25519 key (RFC 7638, RFC 8037)."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public_key}"}}'
    return _base64url(hashlib.sha256(members.encode()).digest())


def _jwk(key: SigningKey) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": key.kid, "use": "sig", "alg": "EdDSA", "x": key.public_key}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sealed(private: bytes, secret: str) -> str:
    """Return a private key as it is stored."""
    if not secret:
        return _PLAIN + base64.b64encode(private).decode()
    return _ENCRYPTED + _fernet(secret).encrypt(private).decode()


@lru_cache(maxsize=8)
def _private_key(stored: str, secret: str) -> Ed25519PrivateKey:
    """Return a stored private key.

    Raises:
        SigningKeyError: it cannot be decrypted.
    """
    from cryptography.fernet import InvalidToken
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if stored.startswith(_PLAIN):
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(stored.removeprefix(_PLAIN)))
    if not secret:
        raise SigningKeyError(
            "The key that signs webhooks is encrypted, and WEBHOOK_KEY_SECRET is not set. Set it as it was, or run "
            "`manage.py streams_rotate_key --revoke`."
        )
    try:
        private = _fernet(secret).decrypt(stored.removeprefix(_ENCRYPTED))
    except InvalidToken:
        raise SigningKeyError(
            "The key that signs webhooks was encrypted with another WEBHOOK_KEY_SECRET. Set it as it was, or run "
            "`manage.py streams_rotate_key --revoke`."
        ) from None
    return Ed25519PrivateKey.from_private_bytes(private)


def _fernet(secret: str) -> Fernet:
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"django_durable_streams.signing_keys")
    return Fernet(base64.urlsafe_b64encode(kdf.derive(secret.encode())))
