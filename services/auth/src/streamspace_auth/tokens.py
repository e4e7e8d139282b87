"""Access tokens: short-lived JWTs signed with Ed25519, and the life of the keys that sign.

Anybody can verify a token with the public keys of the JWKS, so no service asks us
about each request; the price is that a token lives until it expires.

A key goes through four ages, told by `plan`: it is *published* an hour before it
signs, so that no verifier meets a `kid` it has not heard of; it *signs* until its
successor does; it stays published until the last token it signed has died; then
it is forgotten. Nobody is signed out by any of this.
"""

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streamspace_common.contracts.identity import TOKEN_AUDIENCE, TOKEN_ISSUER, User

ALGORITHM = "EdDSA"
KEY_LEAD = timedelta(hours=1)
"""How long before its first signature a key is published."""
CLOCK_LEEWAY = timedelta(minutes=5)
"""How far a verifier's clock may be behind ours while a key is still wanted."""


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key; `private` is its 32-byte seed."""

    kid: str
    private: Ed25519PrivateKey
    created_at: datetime
    active_from: datetime


@dataclass(frozen=True)
class KeyRules:
    """`rotate_after`: how long one key signs; `token_lifetime`: of the tokens it signs."""

    rotate_after: timedelta
    token_lifetime: timedelta


@dataclass(frozen=True)
class KeyPlan:
    """What to do about the keys now; `signing` is None only where there is none yet."""

    signing: SigningKey | None
    published: tuple[SigningKey, ...]
    forget: tuple[SigningKey, ...]
    make_one_active_from: datetime | None


def plan(keys: Sequence[SigningKey], now: datetime, rules: KeyRules) -> KeyPlan:
    """Sort the keys by age and tell when a new one is due."""
    ordered = sorted(keys, key=lambda key: (key.active_from, key.kid))
    begun = [key for key in ordered if key.active_from <= now]
    # With none begun the clock was set back: the oldest is the one everybody knows.
    signing = begun[-1] if begun else next(iter(ordered), None)
    forget = tuple(
        key
        for key, next_one in itertools.pairwise(begun)
        if next_one.active_from + rules.token_lifetime + CLOCK_LEEWAY < now
    )
    return KeyPlan(
        signing=signing,
        published=tuple(key for key in ordered if key not in forget),
        forget=forget,
        make_one_active_from=_due(ordered, signing, now, rules),
    )


def _due(
    ordered: Sequence[SigningKey], signing: SigningKey | None, now: datetime, rules: KeyRules
) -> datetime | None:
    if signing is None:
        return now
    if ordered[-1] is not signing:
        return None
    end = signing.active_from + rules.rotate_after
    return max(end, now + KEY_LEAD) if now >= end - KEY_LEAD else None


def new_key(now: datetime, active_from: datetime) -> SigningKey:
    private = Ed25519PrivateKey.generate()
    return SigningKey(
        kid=thumbprint(private), private=private, created_at=now, active_from=active_from
    )


def thumbprint(private: Ed25519PrivateKey) -> str:
    """The key's id: its RFC 7638 thumbprint, which nobody has to hand out."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _public_text(private)}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return _base64url(hashlib.sha256(canonical).digest())


def public_jwk(key: SigningKey) -> dict[str, Any]:
    """The public half as a JWKS holds it."""
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": ALGORITHM,
        "use": "sig",
        "kid": key.kid,
        "x": _public_text(key.private),
    }


def issue(key: SigningKey, user: User, sign_in: UUID, now: datetime, lifetime: timedelta) -> str:
    """A token that says who the user is, until `now + lifetime`.

    `sid` names the sign-in (the refresh family), so that a change of password can
    end every other one.
    """
    issued_at = int(now.timestamp())
    claims = {
        "iss": TOKEN_ISSUER,
        "aud": TOKEN_AUDIENCE,
        "sub": user.id,
        "name": user.username,
        "role": user.role.value,
        "sid": str(sign_in),
        "iat": issued_at,
        "exp": issued_at + int(lifetime.total_seconds()),
        "jti": uuid4().hex,
    }
    return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})


def _public_text(private: Ed25519PrivateKey) -> str:
    return _base64url(private.public_key().public_bytes_raw())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
