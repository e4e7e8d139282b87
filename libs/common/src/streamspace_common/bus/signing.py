"""NATS keys and tokens: made, signed and read in this one place.

A key pair's private half is a seed (`SO…`, `SA…`, `SU…`), its public half says what it
stands for (`O…` an operator, `A…` an account, `U…` a user). A token is a JWT whose
issuer and subject are such public keys. Ed25519 signs the same text the same way, and a
token's id is a digest of what it says, so equal claims make equal tokens.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import nkeys


class KeyKind(Enum):
    """What a key pair stands for; part of its textual form."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


def new_seed(kind: KeyKind) -> str:
    """A fresh private key in NATS' textual form (`SO…`, `SA…`, `SU…`)."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), kind.value)
    return seed.decode()


def public_key(seed: str) -> str:
    """The public key that belongs to `seed` (`O…`, `A…`, `U…`).

    Raises:
        ValueError: it is no seed; the text does not quote it.
    """
    try:
        key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    except (ValueError, nkeys.NkeysError):
        raise ValueError("it is not the seed of a NATS key") from None
    return key.decode()


def is_public_key(text: str, kind: KeyKind) -> bool:
    """Whether `text` is a well-formed public key of that kind, its checksum included."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return False
    return (
        len(raw) == _PUBLIC_BYTES
        and raw[0] == kind.value
        and nkeys.crc16(raw[:-2]) == int.from_bytes(raw[-2:], "little")
    )


def sign(
    seed: str,
    *,
    subject: str,
    name: str,
    claims: Mapping[str, Any],
    issued_at: datetime,
    expires_at: datetime | None = None,
) -> str:
    """A NATS token: Ed25519 over two base64url parts, with NATS' own names of keys.

    Args:
        seed: signs; its public key is the issuer.
        subject: the public key the token is about.
        name: for people.
        claims: NATS' own part, `type` included.
        issued_at: whole seconds count. A revocation ends what was issued up to its moment.
        expires_at: None for never.
    """
    body: dict[str, Any] = {
        "iat": int(issued_at.timestamp()),
        "iss": public_key(seed),
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": 2},
    }
    if expires_at is not None:
        body["exp"] = int(expires_at.timestamp())
    body["jti"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
    head = _encode(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_encode(json.dumps(body).encode())}"
    signature: bytes = nkeys.from_seed(bytearray(seed.encode())).sign(signed.encode())
    return f"{signed}.{_encode(signature)}"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; its signature is not looked at.

    Raises:
        ValueError: it is no token.
    """
    match token.split("."):
        case [_, body, _]:
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            if isinstance(claims, dict):
                return claims
    raise ValueError("it is not a NATS token")


def now() -> datetime:
    """This moment, for whoever signs without a clock of their own."""
    return datetime.now(UTC)


_PUBLIC_BYTES = 35


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
