"""The edge to the bus: deliveries, heartbeats and inventories become handlers' calls.

What cannot be read is refused here, with the reason; what contradicts the subject it
came on is refused too, because the subject is what a publisher had the right to.
"""

from pydantic import ValidationError

from streamspace_common.bus import (
    Advisory,
    Bus,
    BusError,
    CoreMessage,
    Delivery,
    PullLoop,
    Reject,
    Retry,
    RetryPolicy,
    StreamMessage,
    Subscription,
    ensure_durable,
    parse_advisory,
    remove_durable,
)
from streamspace_common.contracts.clusters import Heartbeat, Inventory, Presence
from streamspace_common.contracts.events import AgentEvent, Event, UnknownEventError, parse_event
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import AuthMethods, ForgetCluster
from streamspace_common.contracts.streams import (
    COMMANDS,
    SESSION_ADVISORIES,
    SESSION_EVENTS,
    agent_durable,
)
from streamspace_common.contracts.subjects import (
    SubjectError,
    all_heartbeats,
    parse_command,
    parse_heartbeat,
)
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import current_traceparent
from streamspace_session.batching import Batches
from streamspace_session.handlers.events import EventIntake, Incoming
from streamspace_session.handlers.letters import Undertaker
from streamspace_session.handlers.presence import Presences
from streamspace_session.letter_ports import DeadCommand, StoredMessage
from streamspace_session.sweeper import Sweeper

log = get_logger(__name__)

CONCURRENCY = 256
BATCH = 100
_MANY = 12
"""Events of more than one start: a start alone reports seven."""
_GATHER = 0.04
"""Seconds. Measured at 150 starts a second: it saves 30 % of this service's processor time."""
_DATABASE_PAUSE = 1.0
"""Seconds before an event is tried again that the database could not take."""


class BusDurables:
    """`ports.Durables` on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ensure(self, cluster: ClusterId) -> None:
        await ensure_durable(self._bus, agent_durable(cluster))

    async def clear(self, cluster: ClusterId) -> None:
        await remove_durable(self._bus, agent_durable(cluster))
        await self._bus.purge_cluster(cluster)

    async def delivered(self, cluster: ClusterId) -> int:
        try:
            lag = await self._bus.consumer_lag(COMMANDS.name, agent_durable(cluster).name)
        except BusError as error:
            raise ProblemError.of(Code.SERVICE_UNAVAILABLE, str(error)) from error
        return lag.delivered


class BusAccounts:
    """`cluster_ports.ClusterAccounts` on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def forget(self, request: ForgetCluster) -> None:
        await self._bus.call(AuthMethods.REMOVE_CLUSTER, request)


class EventConsumer:
    """Feeds the event intake from the service's durable."""

    def __init__(self, bus: Bus, intake: EventIntake) -> None:
        self._batches = Batches(intake.take, limit=BATCH, many=_MANY, gather=_GATHER)
        self.loop = PullLoop(
            bus,
            SESSION_EVENTS,
            self._handle,
            # Each on its own: a batch keeps the order in which they came.
            key=lambda delivery: str(delivery.sequence),
            concurrency=CONCURRENCY,
            # Events wait for the database, not the other way round: short pauses.
            retry=RetryPolicy(first=0.5, limit=30.0),
        )

    async def run(self) -> None:
        await self.loop.run()

    async def drain(self, timeout: float) -> None:
        await self.loop.drain(timeout)
        await self._batches.drain()

    async def _handle(self, delivery: Delivery) -> None:
        event = _read(delivery)
        if event is None:
            return
        try:
            await self._batches.submit(Incoming(event, delivery.sequence, current_traceparent()))
        except ProblemError as error:
            raise Retry(_DATABASE_PAUSE, error.problem.detail) from error
        except BusError as error:
            raise Retry(_DATABASE_PAUSE, str(error)) from error


def _read(delivery: Delivery) -> Event | None:
    """The event; None for a type that only newer versions know.

    Raises:
        Reject: it is not what its subject says.
    """
    try:
        event = parse_event(delivery.type, delivery.payload)
        subject = event.subject
    except UnknownEventError:
        log.info("event.unknown_type", type=delivery.type, subject=delivery.subject)
        return None
    except (ValidationError, SubjectError) as error:
        log.warning("event.unreadable", subject=delivery.subject, reason=str(error)[:500])
        raise Reject(f"not readable as {delivery.type}") from error
    if subject != delivery.subject:
        kind = "agent" if isinstance(event, AgentEvent) else "core"
        log.warning("event.contradicts_subject", subject=delivery.subject, says=subject, by=kind)
        raise Reject(f"the payload belongs on {subject}")
    return event


class AdvisoryConsumer:
    """Brings what the server gave up to the undertaker, with the message itself."""

    def __init__(self, bus: Bus, undertaker: Undertaker) -> None:
        self._bus = bus
        self._undertaker = undertaker
        self.loop = PullLoop(
            bus,
            SESSION_ADVISORIES,
            self._handle,
            key=lambda delivery: str(delivery.sequence),
            concurrency=8,
            retry=RetryPolicy(first=0.5, limit=30.0),
        )

    async def run(self) -> None:
        await self.loop.run()

    async def drain(self, timeout: float) -> None:
        await self.loop.drain(timeout)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            said = parse_advisory(delivery.payload)
        except ValueError as error:
            raise Reject(str(error)) from error
        if said is None or said.stream != COMMANDS.name:
            return
        try:
            stored = await self._bus.message_at(said.stream, said.sequence)
            await self._undertaker.take(_dead(said, stored))
        except ProblemError as error:
            raise Retry(_DATABASE_PAUSE, error.problem.detail) from error
        except BusError as error:
            raise Retry(_DATABASE_PAUSE, str(error)) from error


def _dead(said: Advisory, stored: StreamMessage | None) -> DeadCommand:
    message = None
    if stored is not None:
        try:
            about = parse_command(stored.subject)
        except SubjectError as error:
            raise Reject(str(error)) from error
        message = StoredMessage(about.cluster, about.session, stored.payload, stored.headers)
    return DeadCommand(
        stream=said.stream,
        sequence=said.sequence,
        deliveries=said.deliveries,
        consumer=said.consumer,
        terminated=said.terminated,
        reason=said.reason,
        message=message,
    )


class Ear:
    """Hears heartbeats and inventories, and knows since when it could.

    `listening_for` is 0 while the bus is away: silence of our own making says nothing
    about clusters.
    """

    def __init__(self, bus: Bus, presences: Presences, clock: Clock) -> None:
        self._bus = bus
        self._presences = presences
        self._clock = clock
        self._since: float | None = None
        self._sweeper: Sweeper | None = None
        self._subscription: Subscription | None = None
        self._known: dict[ClusterId, Presence | None] = {}

    def tell(self, sweeper: Sweeper) -> None:
        """Wake this one when a cluster's presence changes."""
        self._sweeper = sweeper

    async def open(self) -> None:
        self._subscription = await self._bus.subscribe(all_heartbeats(), self._heard)
        self._since = self._clock.monotonic()

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.stop()

    def listening_for(self) -> float:
        """Seconds; ask at least once a second, for it looks at the connection when asked."""
        if not self._bus.connected:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = self._clock.monotonic()
        return self._clock.monotonic() - self._since

    async def _heard(self, message: CoreMessage) -> None:
        try:
            cluster, instance = parse_heartbeat(message.subject)
            said = _said(message)
        except (SubjectError, ValidationError) as error:
            log.warning("heartbeat.unreadable", subject=message.subject, reason=str(error)[:500])
            return
        if said is None:
            return
        if (said.cluster_id, said.instance) != (cluster, instance):
            log.warning("heartbeat.contradicts_subject", subject=message.subject)
            return
        try:
            await self._act(said)
        except ProblemError as error:
            log.warning("heartbeat.not_kept", cluster_id=cluster, reason=error.problem.detail)

    async def _act(self, said: Heartbeat | Inventory) -> None:
        if isinstance(said, Inventory):
            await self._presences.inventory(said)
            return
        presence = await self._presences.heartbeat(said)
        if presence is not self._known.get(said.cluster_id):
            self._known[said.cluster_id] = presence
            if self._sweeper is not None:
                self._sweeper.wake()


def _said(message: CoreMessage) -> Heartbeat | Inventory | None:
    match message.type:
        case Heartbeat.TYPE:
            return Heartbeat.from_json(message.payload)
        case Inventory.TYPE:
            return Inventory.from_json(message.payload)
        case _:
            return None
