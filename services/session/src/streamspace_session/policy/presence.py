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


def presence(live: Sequence[Heard], now: datetime, late_after: timedelta) -> Presence:
    """One healthy agent that takes work makes a cluster online.

    Draining agents take none; one that is late or in trouble still does.
    """
    taking = [one for one in live if not one.heartbeat.draining]
    if any(one.heartbeat.trouble is None and now - one.at < late_after for one in taking):
        return Presence.ONLINE
    if taking:
        return Presence.DEGRADED
    return Presence.DRAINING if live else Presence.OFFLINE
