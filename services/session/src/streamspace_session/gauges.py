"""Keeps the gauges that only a look at the database and the bus can fill.

Every replica does, each for itself, so that a scrape of any of them shows the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from streamspace_common.bus import ApiError, Bus, BusError
from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.sessions import SessionState
from streamspace_common.contracts.streams import (
    SERVICE_DURABLES,
    SESSION_EVENTS,
    Durable,
    agent_durable,
)
from streamspace_common.runtime.logging import get_logger
from streamspace_session import metrics
from streamspace_session.ports import Store

log = get_logger(__name__)

INTERVAL = 10.0
"""Seconds. Prometheus asks every 15 to 60."""


class Gauges:
    """Runs for ever under the supervisor."""

    def __init__(self, store: Store, bus: Bus, *, interval: float = INTERVAL) -> None:
        self._store = store
        self._bus = bus
        self._interval = interval
        self._postponed = False
        self._shown: set[ClusterId] = set()

    async def run(self) -> None:
        """Measure, rest, and again; through outages of the database and the bus."""
        while True:
            try:
                await self.measure()
                self._postponed = False
            except (ProblemError, BusError) as error:
                if not self._postponed:
                    log.warning("gauges.postponed", reason=str(error))
                self._postponed = True
            await asyncio.sleep(self._interval)

    async def measure(self) -> None:
        """Set every gauge once.

        Raises:
            ProblemError: the database is away.
            BusError: the bus is.
        """
        async with self._store.transaction() as tx:
            counts = await tx.sessions.count_by_state()
            age = await tx.sessions.oldest_waiting()
            letters = await tx.letters.count_open()
            clusters = await tx.clusters.views()
        metrics.DEAD_LETTERS.set(letters)
        metrics.QUEUE_AGE.set(max(age.total_seconds(), 0) if age else 0)
        for gone in self._shown - {ClusterId(cluster.id) for cluster in clusters}:
            _forget(gone)
        self._shown = {ClusterId(cluster.id) for cluster in clusters}
        for cluster in clusters:
            _show_last_seen(cluster)
        _show(counts, clusters)
        for durable in _watched(clusters):
            await self._show_lag(durable)

    async def _show_lag(self, durable: Durable) -> None:
        try:
            lag = await self._bus.consumer_lag(durable.stream, durable.name)
        except ApiError as error:
            if error.is_missing:
                return
            raise
        metrics.CONSUMER_PENDING.labels(consumer=durable.name).set(lag.pending)
        metrics.CONSUMER_UNSETTLED.labels(consumer=durable.name).set(lag.ack_pending)
        if durable.name == SESSION_EVENTS.name:
            behind = lag.pending or lag.ack_pending
            metrics.PROJECTION_LAG.set(await self._age(durable, lag.settled + 1) if behind else 0)

    async def _age(self, durable: Durable, first: int) -> float:
        """Seconds since the first message from there on that is the consumer's."""
        oldest = datetime.now(UTC)
        for subject in durable.filters:
            message = await self._bus.next_message(durable.stream, subject, first)
            if message is not None:
                oldest = min(oldest, message.time)
        return (datetime.now(UTC) - oldest).total_seconds()


def _show_last_seen(cluster: Cluster) -> None:
    """Of one whose agents are not let in nothing is shown: its silence is no news."""
    agent = metrics.AGENT(cluster.id)
    if cluster.revoked_at is not None:
        with suppress(KeyError):
            metrics.LAST_SEEN.remove(agent)
    elif cluster.last_seen_at is not None:
        metrics.LAST_SEEN.labels(agent=agent).set(cluster.last_seen_at.timestamp())


def _forget(cluster: ClusterId) -> None:
    """End the series of a cluster that was removed; those that share a label keep it."""
    if metrics.AGENT(cluster) != cluster:
        return
    durable = agent_durable(cluster).name
    with suppress(KeyError):
        metrics.LAST_SEEN.remove(cluster)
    for state in SessionState:
        with suppress(KeyError):
            metrics.SESSIONS.remove(state.value, cluster)
    for gauge in (metrics.CONSUMER_PENDING, metrics.CONSUMER_UNSETTLED):
        with suppress(KeyError):
            gauge.remove(durable)


def _show(
    counts: Mapping[tuple[SessionState, ClusterId | None], int], clusters: Sequence[Cluster]
) -> None:
    """Show every state of every cluster: what has gone must become zero, not stay."""
    shown: dict[tuple[str, str], int] = {}
    for cluster in (None, *(one.id for one in clusters)):
        for state in SessionState:
            key = (state.value, metrics.AGENT(cluster))
            shown[key] = shown.get(key, 0) + counts.get((state, cluster), 0)
    for (state_name, agent), number in shown.items():
        metrics.SESSIONS.labels(state=state_name, agent=agent).set(number)


def _watched(clusters: Sequence[Cluster]) -> list[Durable]:
    """Our own consumers, and those of the clusters that have a label of their own."""
    labelled = (one.id for one in clusters if metrics.AGENT(one.id) == one.id)
    return [*SERVICE_DURABLES, *(agent_durable(cluster) for cluster in labelled)]
