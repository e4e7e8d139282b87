"""Who calls: an access token made into a `Principal`, without asking anybody.

Tokens are signed by auth with Ed25519. The public keys are fetched once and again
when a token names a key that is not known, at most every five seconds, so that keys
rotate without anybody signing in again and nonsense tokens cause no storm.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import jwt
from pydantic import ValidationError

from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import KeySet
from streamspace_common.runtime.clock import Clock, SystemClock

ALGORITHM: Final = "EdDSA"
_LEEWAY: Final = 10
"""Seconds by which two machines' clocks may differ."""
_REFETCH_PAUSE: Final = 5.0
_MAX_AGE: Final = 300.0
"""Seconds after which keys are fetched anew, so that a withdrawn key stops working."""
_MAX_LENGTH: Final = 4096
_REMEMBERED: Final = 2048
"""Good tokens kept by their hash until they expire or the keys are fetched anew: a browser
sends the same one with every request, and checking its signature costs as much as the rest."""
_REQUIRED: Final = ["exp", "iat", "iss", "aud", "sub"]


class TokenVerifier:
    """Verifies access tokens against auth's published keys.

    Args:
        fetch_keys: asks auth for its JWKS; may raise `ProblemError` when it is away.
        issuer: the `iss` a token must have.
        audience: the `aud` a token must have.
        clock: for the pauses between fetches.
    """

    def __init__(
        self,
        fetch_keys: Callable[[], Awaitable[KeySet]],
        *,
        issuer: str,
        audience: str,
        clock: Clock | None = None,
    ) -> None:
        self._fetch_keys = fetch_keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock or SystemClock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The caller this token was made for.

        Raises:
            ProblemError: `unauthenticated` for any token that is not good;
                `service-unavailable` when there are no keys to tell by.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._verified.get(digest)
        if known is not None and not self._stale() and self._clock.now().timestamp() < known[1]:
            return known[0]
        claims = self._decode(token, await self._key(_key_id(token)))
        principal = _principal(claims)
        self._verified[digest] = principal, float(claims["exp"])
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return principal

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError as error:
            raise _refused("The access token has expired.") from error
        except jwt.PyJWTError as error:
            raise _refused("The access token is not valid.") from error
        return claims

    async def _key(self, key_id: str) -> jwt.PyJWK:
        if key_id not in self._keys or self._stale():
            await self._refresh(key_id)
        try:
            return self._keys[key_id]
        except KeyError:
            raise _refused("The access token is not valid.") from None

    async def _refresh(self, key_id: str) -> None:
        async with self._fetching:
            if key_id in self._keys and not self._stale():
                return  # fetched by somebody else while this one waited
            now = self._clock.monotonic()
            if self._keys and self._tried_at is not None and now - self._tried_at < _REFETCH_PAUSE:
                return
            self._tried_at = now
            try:
                self._keys = _usable(await self._fetch_keys())
                self._verified.clear()
            except ProblemError:
                # Auth is away: the keys we have go on verifying who is signed in.
                if key_id not in self._keys:
                    raise
            else:
                self._fetched_at = now

    def _stale(self) -> bool:
        return self._fetched_at is None or self._clock.monotonic() - self._fetched_at >= _MAX_AGE


def _principal(claims: Mapping[str, Any]) -> Principal:
    try:
        return Principal(
            user_id=claims["sub"],
            username=claims.get("name"),
            role=claims.get("role"),
            sign_in=claims.get("sid"),
        )
    except ValidationError as error:
        raise _refused("The access token lacks what it must tell.") from error


def _key_id(token: str) -> str:
    if not token or len(token) > _MAX_LENGTH:
        raise _refused("The access token is not valid.")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _refused("The access token is not valid.") from error
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(key_id, str):
        raise _refused("The access token is not valid.")
    return key_id


def _usable(keys: KeySet) -> dict[str, jwt.PyJWK]:
    """Keys by id; those of another kind are of no use here."""
    usable: dict[str, jwt.PyJWK] = {}
    for key in keys.keys:
        if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and "d" not in key:
            made = jwt.PyJWK(key, algorithm=ALGORITHM)
            if made.key_id:
                usable[made.key_id] = made
    return usable


def _refused(detail: str) -> ProblemError:
    return ProblemError.of(Code.UNAUTHENTICATED, detail)
