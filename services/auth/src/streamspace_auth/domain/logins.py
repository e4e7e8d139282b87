"""Failed logins: how many are too many, and for how long.

Two limits stand side by side. Per account, failures are kept in the database, so
that all replicas agree; the counter belongs to the *name that was typed*, whether
or not such a user exists, so that a lock-out tells nobody which names are real.
Per address, each process counts on its own: it stops one machine from trying
many names, where an exact sum over replicas matters less than never touching the
database for it. IPv6 is counted by /64, because every customer is given one.

A refused try is not counted: who keeps knocking does not lengthen the wait, so an
attacker cannot lock an account for ever without new tries being judged.
"""

import hashlib
import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from streamspace_auth.domain.accounts import username_key
from streamspace_common.contracts.problems import Code, ProblemError


@dataclass(frozen=True)
class FailureLimit:
    """At most `tries` failures within any span of `window`."""

    tries: int
    window: timedelta


class LoginResult(StrEnum):
    """How a login ended; the label of `streamspace_logins_total`."""

    OK = "ok"
    WRONG = "wrong"
    DISABLED = "disabled"
    THROTTLED = "throttled"


def account_key(username: str) -> str:
    """Under which the failures of a typed name are counted.

    A digest, because people do type their password into the name's field, and
    because a name may hold what a database text cannot.
    """
    return hashlib.sha256(username_key(username).encode("utf-8", "surrogatepass")).hexdigest()


def address_group(address: str) -> str:
    """The network an address is counted with: itself, or its IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, 64), strict=False))


def wait(failures: Sequence[datetime], now: datetime, limit: FailureLimit) -> timedelta | None:
    """How long until another try is judged; None when it may be at once."""
    recent = sorted(moment for moment in failures if now - moment < limit.window)
    if len(recent) < limit.tries:
        return None
    return recent[-limit.tries] + limit.window - now


def with_failure(
    failures: Sequence[datetime], now: datetime, limit: FailureLimit
) -> tuple[datetime, ...]:
    """The failures worth remembering after one more, oldest first; never more than the limit."""
    recent = sorted(moment for moment in failures if now - moment < limit.window)
    return (*recent, now)[-limit.tries :]


def too_many(wait_for: timedelta) -> ProblemError:
    """The refusal, with the whole seconds to wait, at least one."""
    seconds = max(1, math.ceil(wait_for.total_seconds()))
    return ProblemError.of(
        Code.TOO_MANY_REQUESTS,
        f"Too many failed tries. Wait {seconds} seconds, then try again.",
        retry_after=seconds,
    )
