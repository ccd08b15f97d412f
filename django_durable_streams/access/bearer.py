"""Bearer tokens: JWTs that name the streams that their holders may use. Needs the extra `jwt`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..runtime.bounded_cache import BoundedCache
from .access_request import AccessRequest
from .base import ACTIONS, Action, Permission, by_token
from .patterns import PATH_RULE, Pattern, pattern
from .users import User

PARAMETER = "access_token"
"""The query parameter for a token if the client cannot send headers, as with EventSource (RFC 6750, section 2.3)."""

MAX_VERIFIED_TOKENS = 4096
"""Valid tokens in the cache of one permission, which are not verified again."""

MAX_VERIFIED_BYTES = 8 * 1024 * 1024
"""Characters of all tokens in that cache."""

MAX_TOKEN_LENGTH = 8192
"""Characters of a token. Longer ones are refused."""

_REASONS = {
    "ExpiredSignatureError": "The bearer token has expired (exp).",
    "ImmatureSignatureError": "The bearer token is not valid yet (nbf, iat). Compare the clocks.",
    "InvalidSignatureError": "The signature of the bearer token is wrong. Compare KEY with the key of the issuer.",
    "InvalidAlgorithmError": "The algorithm of the bearer token is not one of ALGORITHMS.",
    "InvalidAudienceError": "The bearer token is for another audience (aud) than AUDIENCE.",
    "InvalidIssuerError": "The bearer token is of another issuer (iss) than ISSUER.",
    "InvalidSubjectError": "The claim sub of the bearer token is not a text.",
    "InvalidJTIError": "The claim jti of the bearer token is not a text.",
    "InvalidIssuedAtError": "The claim iat of the bearer token is not a number.",
}
"""Reasons by the names of PyJWT's errors. The texts of these errors may have parts of the token."""

Credential = bytes | str
"""The value of the header `Authorization`, or of the parameter. Equal values have the same token."""

Claims = tuple[dict[Action, list[Pattern]], float]
"""The patterns of paths by action, and the end of the token in Unix seconds."""


class BearerTokens(Permission):
    """Allows the actions that the claim of a valid token names, whether or not the user is logged in.

    The claim is an object from actions to lists of patterns of paths, as in
    `{"read": ["chat/42/**"], "append": ["chat/42/typing"]}`.
    The action `subscribe` has patterns of the ids of subscriptions. The action `list` has patterns that end with `**`.
    The token comes in `Authorization: Bearer`, or in the query as `access_token`. A request with both has no token.

    Args:
        key: the secret (for HS256 and similar) or the public key in PEM, or a dict of several keys by `kid`.
        algorithms: the accepted algorithms, such as `["ES256"]`. There is no default.
        audience: the value that `aud` must be or contain. None: tokens with an `aud` are refused.
        issuer: the value that `iss` must be. None: any.
        claim: the name of the claim.
        leeway: seconds by which clocks may differ, for `nbf` and `iat`. A token ends at `exp` exactly.

    Raises:
        ValueError: an option is invalid.
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

        if isinstance(algorithms, str) or not (accepted := list(algorithms)):
            raise ValueError("ALGORITHMS must be a list of the accepted algorithms, such as ['ES256'].")
        unknown = set(accepted) - (set(jwt.algorithms.get_default_algorithms()) - {"none"})
        if unknown:
            raise ValueError(f"ALGORITHMS has unknown or unsafe algorithms: {', '.join(sorted(unknown))}.")
        if not key:
            raise ValueError("KEY is missing. Set it to the secret or the public key.")
        self._keys = dict(key) if isinstance(key, Mapping) else None
        self._key = None if isinstance(key, Mapping) else key
        self._algorithms = accepted
        self._audience = audience
        self._issuer = issuer
        self._claim = claim
        self._leeway = leeway
        self._verified = BoundedCache[Credential, Claims](
            MAX_VERIFIED_TOKENS, max_bytes=MAX_VERIFIED_BYTES, size_of=len
        )

    @by_token
    def can_create(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CREATE, path, request)

    @by_token
    def can_read(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.READ, path, request)

    @by_token
    def can_append(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.APPEND, path, request)

    @by_token
    def can_close(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.CLOSE, path, request)

    @by_token
    def can_delete(self, user: User, path: str, request: AccessRequest) -> bool:
        return self._allows(Action.DELETE, path, request)

    def can_subscribe(self, user: User, subscription_id: str, request: AccessRequest) -> bool:
        return self._allows(Action.SUBSCRIBE, subscription_id, request)

    def can_list(self, user: User, prefix: str, request: AccessRequest) -> bool:
        return self._allows(Action.LIST, prefix, request)

    def _allows(self, action: Action, path: str, request: AccessRequest) -> bool:
        credential = _credential(request)
        if credential is None:
            request.explain_default("There is no bearer token, or one in the header and one in the URL.")
            return False
        claims = self._verified.get(credential)
        if claims is None:
            token = _token(credential)
            verified = self._verify(token) if token is not None else "The bearer token is empty or too long."
            if isinstance(verified, str):
                request.explain(verified)
                return False
            claims = verified
            self._verified.put(credential, claims)
        patterns, ends = claims
        if time.time() >= ends:
            request.explain(_REASONS["ExpiredSignatureError"])
            return False
        matches = Pattern.matches_all_below if action is Action.LIST else Pattern.matches
        for allowed in patterns.get(action, ()):
            if matches(allowed, path):
                request.until(ends)
                return True
        request.explain("The claim of the bearer token has no pattern for this action and path.")
        if action is not Action.SUBSCRIBE:
            for unmatched in (one.text for one in patterns.get(action, ()) if not one.can_match):
                request.explain(f"No path matches {unmatched!r}: {PATH_RULE}")
        return False

    def _verify(self, token: str) -> Claims | str:
        """Return the claims of a token, or the reason why it is invalid."""
        import jwt

        try:
            key = self._key
            if self._keys is not None:
                key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                return "KEY has no key with the kid of the bearer token."
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )
        except jwt.MissingRequiredClaimError as error:
            return f"The bearer token lacks the claim {error.claim}."
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            return _REASONS.get(type(error).__name__, "The bearer token is no valid JWT.")
        try:
            return _grants(claims[self._claim]), float(claims["exp"])
        except KeyError:
            return f"The bearer token lacks the claim {self._claim}."
        except (ValueError, TypeError) as error:
            return f"The claim {self._claim} of the bearer token is invalid: {error}"


def _grants(claim: Any) -> dict[Action, list[Pattern]]:
    """Return the patterns of paths by action. A claim with any invalid part grants nothing.

    Raises:
        ValueError: a part of the claim is invalid.
    """
    if not isinstance(claim, dict):
        raise ValueError("It is not an object of actions.")
    if others := set(claim) - set(ACTIONS):
        raise ValueError(f"It has the action {min(others)}, which is none of: {', '.join(ACTIONS)}.")
    patterns = {}
    for action, texts in claim.items():
        if not isinstance(texts, list):
            raise ValueError("The patterns of an action must be a list.")
        patterns[Action(action)] = allowed = [pattern(text) for text in texts]
        if any(path_pattern.fields for path_pattern in allowed):
            raise ValueError("A pattern in a token cannot have a field such as {user.pk}. Write the path out.")
    return patterns


def _credential(request: AccessRequest) -> Credential | None:
    """Return the value of the header, or of the parameter, that may hold a token. None: there is none, or both."""
    parameter = request.parameter(PARAMETER)
    header = request.header(b"authorization")
    if header is None or header[:7].lower() != b"bearer ":
        return parameter
    return header if parameter is None else None


def _token(credential: Credential) -> str | None:
    """Return the token in the value of a header or a parameter, or None if it is empty or too long."""
    token = credential if isinstance(credential, str) else credential[7:].strip(b" ").decode("latin-1")
    return token if token and len(token) <= MAX_TOKEN_LENGTH else None
