"""Bearer tokens: JWTs that say which streams their holders may use. Needs the extra `jwt`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from .access_request import AccessRequest
from .base import ACTIONS, Action, Permission
from .patterns import Pattern, pattern
from .users import User

PARAMETER = "access_token"
"""The query parameter that carries a token where no header can, as in EventSource (RFC 6750, section 2.3)."""

MAX_REMEMBERED = 4096
"""Good tokens that one permission remembers, so as not to verify them again."""

MAX_TOKEN_LENGTH = 8192

Claims = tuple[dict[str, list[Pattern]], float]


class BearerTokens(Permission):
    """Whoever comes with a valid token may do what its claim says, logged in or not.

    The claim is an object from actions to lists of patterns of paths, as in
    `{"read": ["chat/42/**"], "append": ["chat/42/typing"]}`.
    The token comes in `Authorization: Bearer`, or in the query as `access_token`; one in each are none.

    Args:
        key: the secret (HS256 and the like) or public key in PEM; or a dict of several by `kid`.
        algorithms: those that are accepted, such as `["ES256"]`. There is no default.
        audience: what `aud` has to be or contain. None: a token with an `aud` is refused.
        issuer: what `iss` has to be. None: any.
        claim: name of the claim.
        leeway: seconds by which clocks may differ, for `nbf` and `iat`; at `exp` a token ends.

    Raises:
        ValueError: the options cannot be right.
    """

    in_memory = True
    needs_user = False
    varies_on = ("Authorization",)
    challenge = "Bearer"

    def __init__(
        self,
        *,
        key: str | bytes | Mapping[str, str | bytes],
        algorithms: Iterable[str],
        audience: str | None = None,
        issuer: str | None = None,
        claim: str = "streams",
        leeway: float = 0,
    ) -> None:
        import jwt  # an optional dependency

        if isinstance(algorithms, str) or not (allowed := list(algorithms)):
            raise ValueError("ALGORITHMS is a list of those that are accepted, such as ['ES256'].")
        unknown = set(allowed) - (set(jwt.algorithms.get_default_algorithms()) - {"none"})
        if unknown:
            raise ValueError(f"ALGORITHMS has what cannot be accepted: {', '.join(sorted(unknown))}.")
        if not key:
            raise ValueError("KEY is missing.")
        self._keys = dict(key) if isinstance(key, Mapping) else None
        self._key = None if isinstance(key, Mapping) else key
        self._algorithms = allowed
        self._audience = audience
        self._issuer = issuer
        self._claim = claim
        self._leeway = leeway
        self._remembered: dict[str, Claims] = {}

    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CREATE, path, request)

    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.READ, path, request)

    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.APPEND, path, request)

    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CLOSE, path, request)

    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.DELETE, path, request)

    def _allows(self, action: Action, path: str, request: AccessRequest) -> bool:
        token = _token(request)
        if token is None:
            return False
        known = self._remembered.get(token)
        if known is None:
            known = self._verify(token)
            if known is None:
                return False
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[token] = known
        grants, ends = known
        if time.time() >= ends or not any(known.matches(path) for known in grants.get(action.value, ())):
            return False
        request.until(ends)
        return True

    def _verify(self, token: str) -> Claims | None:
        """Return what a token grants and when it ends, or None where it is not good."""
        import jwt

        try:
            key = self._key
            if self._keys is not None:
                key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )
            return _grants(claims.get(self._claim)), float(claims["exp"])
        except (jwt.PyJWTError, ValueError, TypeError):
            return None


def _grants(claim: Any) -> dict[str, list[Pattern]]:
    """Read the claim. One that has anything in it that means nothing grants nothing.

    Raises:
        ValueError: it has.
    """
    if not isinstance(claim, dict) or not set(claim) <= set(ACTIONS):
        raise ValueError("The claim is no object of actions.")
    found = {}
    for action, texts in claim.items():
        if not isinstance(texts, list):
            raise ValueError("A claim's patterns are a list.")
        found[action] = [pattern(text) for text in texts]
        if any(known.fields for known in found[action]):
            raise ValueError("A token names its paths; it has no user to fill them in from.")
    return found


def _token(request: AccessRequest) -> str | None:
    """Return the one token of a request."""
    token = request.parameter(PARAMETER)
    header = request.header(b"authorization")
    if header is not None and header[:7].lower() == b"bearer ":
        if token is not None:
            return None
        token = header[7:].strip(b" ").decode("latin-1")
    return token if token and len(token) <= MAX_TOKEN_LENGTH else None
