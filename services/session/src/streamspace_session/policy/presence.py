"""Whether a cluster is there, judged from what its agents last said of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from streamspace_common.contracts.clusters import Heartbeat, Presence


@dataclass(frozen=True)
class Heard:
    """The last heartbeat of one agent instance, and when we (not it) took note of it."""

    heartbeat: Heartbeat
    at: datetime


def live_agents(heard: Sequence[Heard], now: datetime, offline_after: timedelta) -> list[Heard]:
    """Those heard of recently, the freshest first."""
    live = [one for one in heard if now - one.at < offline_after]
    return sorted(live, key=lambda one: (one.at, one.heartbeat.instance), reverse=True)


def presence(
    live: Sequence[Heard], now: datetime, late_after: timedelta, *, drained: bool = False
) -> Presence:
    """One healthy agent that takes work makes a cluster online.

    Draining agents take none; one that is late or in trouble still does. Where an
    operator wants no new sessions (`drained`), live agents change nothing about that.
    """
    if drained and live:
        return Presence.DRAINING
    taking = [one for one in live if not one.heartbeat.draining]
    if any(one.heartbeat.trouble is None and now - one.at < late_after for one in taking):
        return Presence.ONLINE
    if taking:
        return Presence.DEGRADED
    return Presence.DRAINING if live else Presence.OFFLINE


def is_behind(version: str, ours: str) -> bool:
    """Whether an agent's version is older than ours; one that cannot be read is not."""
    theirs, known = _numbers(version), _numbers(ours)
    return bool(theirs and known) and theirs < known


def _numbers(version: str) -> tuple[int, ...]:
    """`1.2.0` as (1, 2, 0); empty where it is no release."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
