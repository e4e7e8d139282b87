"""Refresh tokens: families, rotation, and what a token that comes twice means.

Signing in starts a family. Each use of a token spends it and gives a successor of
the same family, so only the newest token of a family is worth stealing. A *spent*
token that comes again means that two parties hold it; nobody can tell which one
is the thief, so the whole family is revoked and both must sign in.

Two tabs of one browser share one token and may refresh in the same moment; so may
a client whose answer was lost on the way. For `grace` after it was spent, a token
is therefore given another successor instead of an alarm. That does not blunt the
alarm: successors carry a generation, and using one spends all others up to that
generation, so of two parties that raced inside the grace only one goes on, and
the other one's next use is a reuse.

Access tokens are not listed anywhere and cannot be revoked one by one; they die by
their age (15 minutes by default). Revoking a family means that no new one follows.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID, uuid4

from streamspace_common.contracts.ids import UserId

TOKEN_PREFIX = "ssr_"  # noqa: S105  a public mark by which scanners find leaked tokens
TOKEN_BYTES = 32


@dataclass(frozen=True)
class FamilyRules:
    """`sliding`: life of one token; `absolute`: of the family; `grace`: see the module."""

    sliding: timedelta = timedelta(days=7)
    absolute: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(seconds=10)


@dataclass(frozen=True)
class Family:
    """All refresh tokens that descend from one sign-in."""

    id: UUID
    user_id: UserId
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class RefreshToken:
    """One token as it is kept: its digest, never itself."""

    digest: bytes
    family_id: UUID
    generation: int
    issued_at: datetime
    expires_at: datetime
    rotated_at: datetime | None = None


@dataclass(frozen=True)
class IssuedToken:
    """A token in the one moment in which it is known."""

    text: str
    kept: RefreshToken


class Verdict(Enum):
    """What a presented token is worth."""

    ROTATE = auto()
    """Live: spend it and give a successor."""
    GRACE = auto()
    """Spent a moment ago: give another successor."""
    REUSED = auto()
    """Spent before: revoke the family."""
    EXPIRED = auto()
    REVOKED = auto()


def digest(token: str) -> bytes:
    """What is stored of a token. It has 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def start_family(user_id: UserId, now: datetime, rules: FamilyRules) -> tuple[Family, IssuedToken]:
    """A new family and its first token."""
    family = Family(id=uuid4(), user_id=user_id, created_at=now, expires_at=now + rules.absolute)
    return family, _issue(family, 1, now, rules)


def successor(
    family: Family, token: RefreshToken, now: datetime, rules: FamilyRules
) -> IssuedToken:
    return _issue(family, token.generation + 1, now, rules)


def judge(family: Family, token: RefreshToken, now: datetime, rules: FamilyRules) -> Verdict:
    """What to do with a token that somebody presents.

    A spent token is judged as spent also after its own end: that it comes again is
    the news, not its age.
    """
    if family.revoked_at is not None:
        return Verdict.REVOKED
    if token.rotated_at is not None:
        if now - token.rotated_at <= rules.grace and now < family.expires_at:
            return Verdict.GRACE
        return Verdict.REUSED
    if now >= min(token.expires_at, family.expires_at):
        return Verdict.EXPIRED
    return Verdict.ROTATE


def revoked(family: Family, now: datetime) -> Family:
    """The family after revocation; the first one counts."""
    return family if family.revoked_at is not None else replace(family, revoked_at=now)


def _issue(family: Family, generation: int, now: datetime, rules: FamilyRules) -> IssuedToken:
    text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    return IssuedToken(
        text=text,
        kept=RefreshToken(
            digest=digest(text),
            family_id=family.id,
            generation=generation,
            issued_at=now,
            expires_at=min(now + rules.sliding, family.expires_at),
        ),
    )
