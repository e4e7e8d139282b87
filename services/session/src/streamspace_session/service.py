"""The service without its process: everything built by hand, started and drained in order.

`main` gives it signals and probes; tests run it as it is.
"""

import asyncio
from datetime import timedelta

from streamspace_common.bus import Bus, BusError, BusUnavailableError, Served, provision
from streamspace_common.bus.connection import Handlers
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.streams import EVENTS, SERVICE_DURABLES, STREAMS, agent_durable
from streamspace_common.runtime.clock import Clock, SystemClock
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError, Supervisor
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import OutboxRelay
from streamspace_session.consumers import (
    AdvisoryConsumer,
    BusAccounts,
    BusDurables,
    Ear,
    EventConsumer,
)
from streamspace_session.gauges import Gauges
from streamspace_session.handlers.clusters import ClusterQueries
from streamspace_session.handlers.create import Creation
from streamspace_session.handlers.drain import Drain
from streamspace_session.handlers.events import EventIntake
from streamspace_session.handlers.histories import Histories
from streamspace_session.handlers.letters import DeadLetters, Undertaker
from streamspace_session.handlers.lifecycle import Lifecycle
from streamspace_session.handlers.presence import Presences
from streamspace_session.handlers.redrive import Redrive
from streamspace_session.handlers.removal import Removal
from streamspace_session.handlers.tickets import Admissions
from streamspace_session.ports import Retention
from streamspace_session.settings import SessionSettings
from streamspace_session.store import SqlStore
from streamspace_session.sweeper import Sweeper

log = get_logger(__name__)

_PROVISION_PAUSE = 0.5
_DRAIN_SHARE = 0.5
"""Of the drain time, for events being worked on."""

_LATE_SHARE = 0.6
"""Of the silence after which an agent counts as gone: one heartbeat missed, and some delay."""


class SessionService:
    """One replica. Give it a connected bus and a migrated database."""

    def __init__(
        self,
        settings: SessionSettings,
        bus: Bus,
        database: Database,
        *,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        store = SqlStore(database)
        timing = settings.timing
        offline_after = timedelta(seconds=settings.offline_after)
        self._settings = settings
        self._bus = bus
        self.store = store
        self._creation = Creation(store, settings.rules)
        self._lifecycle = Lifecycle(store, timing)
        self._admissions = Admissions(store, timedelta(seconds=settings.ticket_life))
        self._clusters = ClusterQueries(store)
        self._redrive = Redrive(store, timing)
        self._letters = DeadLetters(store, timing, settings.rules.quota)
        self._histories = Histories(store)
        self._served: Served | None = None
        presences = Presences(
            store,
            timing,
            late_after=offline_after * _LATE_SHARE,
            offline_after=offline_after,
            inventory_grace=timedelta(seconds=settings.inventory_grace),
        )
        self._drain = Drain(store, presences, timing)
        self._ear = Ear(bus, presences, clock)
        self.relay = OutboxRelay(database, bus)
        durables = BusDurables(bus)
        self._removal = Removal(store, BusAccounts(bus), durables, timing)
        self.intake = EventIntake(store, durables, self._removal, timing)
        self.events = EventConsumer(bus, self.intake)
        self.advisories = AdvisoryConsumer(bus, Undertaker(store))
        self.sweeper = Sweeper(
            store,
            presences,
            durables,
            timing=timing,
            overcommit=settings.rules.overcommit,
            retention=Retention(
                idempotency=timedelta(seconds=settings.idempotency_life),
                ended=timedelta(days=settings.ended_session_days),
            ),
            interval=settings.sweep_interval,
            offline_after=offline_after,
            listening=self._ear.listening_for,
            clock=clock,
        )
        self._ear.tell(self.sweeper)
        self._gauges = Gauges(store, bus)

    async def start(self, supervisor: Supervisor) -> None:
        """Make the streams, begin to work, then answer.

        Raises:
            FatalError: a stream exists in a shape that cannot be made right.
        """
        await self._provision()
        supervisor.spawn("outbox", self.relay.run)
        supervisor.spawn("events", self.events.run)
        supervisor.spawn("advisories", self.advisories.run)
        supervisor.spawn("sweeper", self.sweeper.run)
        supervisor.spawn("gauges", self._gauges.run)
        await self._ear.open()
        self._served = await self._bus.serve(
            "session", self._handlers(), concurrency=self._settings.concurrency
        )
        supervisor.on_drain("requests", self._served.stop)
        supervisor.on_drain("heartbeats", self._ear.close)
        supervisor.on_drain("events", self._drain_events)

    async def _provision(self) -> None:
        async with self.store.transaction() as tx:
            clusters = await tx.clusters.ids()
        durables = [*SERVICE_DURABLES, *(agent_durable(cluster) for cluster in clusters)]
        replicas = self._settings.nats_replicas
        while True:
            try:
                await provision(self._bus, STREAMS, durables, num_replicas=replicas)
                await self._fit_to_stream()
            except BusUnavailableError as error:
                # Servers that begin together, or lost one, elect a leader first.
                log.warning("session.waits_for_streams", error=str(error))
                await asyncio.sleep(_PROVISION_PAUSE)
            except BusError as error:
                raise FatalError(f"The streams could not be made: {error}") from error
            else:
                return

    async def _fit_to_stream(self) -> None:
        """Listen to a stream that was lost and made anew, or restored from an older copy."""
        async with self.store.transaction() as tx:
            # Asked for first: a replica may take what is told meanwhile.
            known = await tx.places.furthest()
            last = await self._bus.last_sequence(EVENTS.name)
            if known > last:
                await tx.places.cut(last)
                log.warning("session.stream_is_shorter", known_until=known, ends_at=last)

    async def _drain_events(self) -> None:
        limit = self._settings.drain_timeout * _DRAIN_SHARE
        await self.events.drain(limit)
        await self.advisories.drain(limit)

    def _handlers(self) -> Handlers:
        methods = SessionMethods
        return {
            methods.CREATE: self._creation.create,
            methods.LIST: self._lifecycle.list,
            methods.GET: self._lifecycle.get,
            methods.DELETE: self._lifecycle.delete,
            methods.HIBERNATE: self._lifecycle.hibernate,
            methods.WAKE: self._lifecycle.wake,
            methods.KEEPALIVE: self._lifecycle.keepalive,
            methods.COMMANDS: self._lifecycle.commands,
            methods.AT: self._histories.at,
            methods.HISTORY: self._histories.page,
            methods.LIST_DEAD_LETTERS: self._letters.list,
            methods.RETRY_DEAD_LETTER: self._letters.retry,
            methods.DISCARD_DEAD_LETTER: self._letters.discard,
            methods.CONNECT: self._admissions.connect,
            methods.REDEEM_TICKET: self._admissions.redeem,
            methods.CHECK_ADMISSION: self._admissions.check,
            methods.LIST_CLUSTERS: self._clusters.list,
            methods.GET_CLUSTER: self._clusters.get,
            methods.REDRIVE_CLUSTER: self._redrive.cluster,
            methods.DRAIN_CLUSTER: self._drain.drain,
            methods.UNDRAIN_CLUSTER: self._drain.undrain,
            methods.REMOVE_CLUSTER: self._removal.remove,
            methods.LIST_RUNTIMES: self._clusters.runtimes,
        }
