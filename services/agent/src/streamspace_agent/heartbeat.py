"""Says every few seconds that this agent lives, and less often what it holds.

Both are core messages: one that is lost is made up for by the next. The inventory also
goes out right after each (re)connection, for that is when the control plane's picture
may be wrong.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from streamspace_agent import metrics
from streamspace_agent.domain import Observed
from streamspace_agent.ports import Runtime, RuntimeFailure
from streamspace_common.contracts.base import Message
from streamspace_common.contracts.clusters import Heartbeat, Inventory, ResourceState
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_USING_CAPACITY = {ResourceState.STARTING, ResourceState.RUNNING}


class Announcer(Protocol):
    """Sends to whoever listens right now."""

    @property
    def connected(self) -> bool: ...

    async def announce(self, message: Message) -> None:
        """Send; without a connection the message is dropped."""


@dataclass(frozen=True)
class Identity:
    """What an agent says of itself in each heartbeat."""

    cluster: ClusterId
    instance: str
    version: str
    architecture: str
    labels: dict[str, str] = field(default_factory=dict)


class Pulse:
    """Sends heartbeats and inventories; intervals in seconds."""

    def __init__(
        self,
        identity: Identity,
        runtime: Runtime,
        announcer: Announcer,
        clock: Clock,
        *,
        busy: Callable[[], tuple[SessionId, ...]],
        interval: float,
        inventory_interval: float,
    ) -> None:
        self._identity = identity
        self._runtime = runtime
        self._announcer = announcer
        self._clock = clock
        self._busy = busy
        self._interval = interval
        self._inventory_interval = inventory_interval
        self._draining = False
        self._held: tuple[Observed, ...] = ()

    async def run(self) -> None:
        """Beat; for ever."""
        was_connected = False
        next_inventory = 0.0
        while True:
            connected = self._announcer.connected
            await self.beat()
            now = self._clock.monotonic()
            if connected and (not was_connected or now >= next_inventory):
                await self.tell_inventory()
                next_inventory = now + self._inventory_interval
            was_connected = connected
            await asyncio.sleep(self._interval)

    async def drain(self) -> None:
        """Say once, and with each further beat, that no more work is wanted."""
        self._draining = True
        await self.beat()

    async def beat(self) -> None:
        # A runtime that cannot look is in trouble, and the beat says so.
        with suppress(RuntimeFailure):
            self._held = await self._runtime.inventory()
        held = self._held
        busy = len(self._busy())
        metrics.show(held, busy)
        identity = self._identity
        await self._announcer.announce(
            Heartbeat(
                cluster_id=identity.cluster,
                instance=identity.instance,
                runtime=self._runtime.kind,
                version=identity.version,
                sent_at=self._clock.now(),
                capacity=await self._runtime.capacity(),
                running_sessions=sum(each.state in _USING_CAPACITY for each in held),
                busy_commands=busy,
                draining=self._draining,
                labels=identity.labels,
                architecture=identity.architecture,
                trouble=await self._runtime.trouble(),
            )
        )

    async def tell_inventory(self) -> None:
        # Asked before looking: what a command begins meanwhile must not seem missing.
        busy = self._busy()
        try:
            held = await self._runtime.inventory()
        except RuntimeFailure as failure:
            # What was there before may be gone: no report is better than an old one.
            log.warning("no inventory", reason=str(failure))
            return
        reports = (observed.report() for observed in held)
        await self._announcer.announce(
            Inventory(
                cluster_id=self._identity.cluster,
                instance=self._identity.instance,
                sent_at=self._clock.now(),
                resources=tuple(report for report in reports if report is not None),
                busy=tuple(sorted({*busy, *self._busy()})),
            )
        )
