"""The agent's voice on the bus: events that must be stored, announcements that need not."""

import asyncio
import random

from streamspace_common.bus import Bus
from streamspace_common.bus.errors import ApiError, BusError, BusUnavailableError
from streamspace_common.contracts.base import Message
from streamspace_common.contracts.events import AgentEvent
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.subjects import heartbeat
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class BusEvents:
    """Stores events, however long the bus is away."""

    def __init__(self, bus: Bus, cluster: ClusterId, instance: str) -> None:
        self._bus = bus
        self._source = f"agent/{cluster}/{instance}"

    async def publish(self, event: AgentEvent) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._bus.publish_event(event, source=self._source)
            except (BusUnavailableError, ApiError) as error:
                # A full or missing stream is the operator's to mend; the event waits.
                log.warning("event not stored yet", id=event.id, error=str(error))
            else:
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)


class BusAnnouncer:
    """Sends heartbeats and inventories on this agent's own subject."""

    def __init__(self, bus: Bus, cluster: ClusterId, instance: str) -> None:
        self._bus = bus
        self._subject = heartbeat(cluster, instance)

    @property
    def connected(self) -> bool:
        return self._bus.connected

    async def announce(self, message: Message) -> None:
        if not self._bus.connected:
            return
        try:
            await self._bus.publish_core(self._subject, message)
        except BusError as error:
            log.warning("announcement lost", type=message.TYPE, error=str(error))
