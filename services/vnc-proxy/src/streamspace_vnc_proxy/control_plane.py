"""The control plane as it is reached over the bus."""

from streamspace_common.bus import Bus, BusError
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.events import SessionActivity
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.requests import (
    Admission,
    AdmissionState,
    AgentMethods,
    CheckAdmission,
    RedeemTicket,
    SessionMethods,
)
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class BusControlPlane:
    """`ports.ControlPlane` over NATS."""

    def __init__(self, bus: Bus, *, source: str) -> None:
        self._bus = bus
        self._source = source

    async def redeem(self, session: SessionId, ticket: str, *, timeout: float) -> Admission:
        request = RedeemTicket.model_validate({"ticket": ticket, "session_id": session})
        return await self._bus.call(SessionMethods.REDEEM_TICKET, request, timeout=timeout)

    async def check(self, session: SessionId, user: UserId, *, timeout: float) -> AdmissionState:
        request = CheckAdmission(session_id=session, user_id=user)
        return await self._bus.call(SessionMethods.CHECK_ADMISSION, request, timeout=timeout)

    async def open_tunnel(
        self, cluster: ClusterId, request: OpenTunnel, *, timeout: float
    ) -> TunnelOpened:
        return await self._bus.call_cluster(
            AgentMethods.OPEN_TUNNEL, cluster, request, timeout=timeout
        )

    async def report(self, activity: SessionActivity) -> bool:
        try:
            await self._bus.publish_event(activity, source=self._source)
        except BusError as error:
            log.warning("activity not stored", session_id=activity.session_id, error=str(error))
            return False
        return True
