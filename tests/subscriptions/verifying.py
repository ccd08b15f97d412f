"""Checks signatures of webhooks as the specification says: by the header, the body and the published keys."""

import base64
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_HEADER = re.compile(r"t=([0-9]+),kid=([A-Za-z0-9_-]+),ed25519=([A-Za-z0-9_-]+)")


def decoded(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_signed(body: bytes, header: str, jwks: bytes | dict[str, Any]) -> bool:
    """Whether one of the published keys has signed the body."""
    keys = json.loads(jwks)["keys"] if isinstance(jwks, bytes) else jwks["keys"]
    match = _HEADER.fullmatch(header)
    assert match is not None
    by_kid = {key["kid"]: key for key in keys}
    assert len(by_kid) == len(keys)
    if match[2] not in by_kid:
        return False
    key = Ed25519PublicKey.from_public_bytes(decoded(by_kid[match[2]]["x"]))
    try:
        key.verify(decoded(match[3]), match[1].encode() + b"." + body)
    except InvalidSignature:
        return False
    return True
