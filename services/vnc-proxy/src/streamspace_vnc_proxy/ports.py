"""What the relay asks of the control plane; the adapter to the bus is `control_plane`."""

from typing import Protocol

from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.events import SessionActivity
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.requests import Admission, AdmissionState


class ControlPlane(Protocol):
    """Every method may raise `ProblemError`; `timeout` is in seconds."""

    async def redeem(self, session: SessionId, ticket: str, *, timeout: float) -> Admission:
        """Spend a ticket."""
        ...

    async def check(self, session: SessionId, user: UserId, *, timeout: float) -> AdmissionState:
        """May this user still see this session, and what is its state?"""
        ...

    async def open_tunnel(
        self, cluster: ClusterId, request: OpenTunnel, *, timeout: float
    ) -> TunnelOpened:
        """Ask an agent of the cluster to reach the session and dial back."""
        ...

    async def report(self, activity: SessionActivity) -> bool:
        """Store an activity event; False when it could not be stored just now."""
        ...
