"""The web clients' share of the data port: takes connections over and ends them."""

import asyncio
import secrets

from streamspace_common.relay.stream import adopt
from streamspace_common.runtime.clock import Clock
from streamspace_vnc_proxy.apps.address import AppsDomain
from streamspace_vnc_proxy.apps.connection import AppConnection, AppServices
from streamspace_vnc_proxy.apps.entering import Entrance
from streamspace_vnc_proxy.apps.passes import Passes
from streamspace_vnc_proxy.apps.pool import AppTunnels
from streamspace_vnc_proxy.apps.rights import Rights
from streamspace_vnc_proxy.apps.visits import Visit, Visits
from streamspace_vnc_proxy.front import Answer, HandOver, Outcome
from streamspace_vnc_proxy.http_head import RequestHead
from streamspace_vnc_proxy.policy import UpgradeRate
from streamspace_vnc_proxy.ports import ControlPlane
from streamspace_vnc_proxy.settings import VncProxySettings
from streamspace_vnc_proxy.tasks import Tasks


class Apps:
    """Serves all sessions' own origins.

    Args:
        services: what connections are served with.
        tasks: where they run.
        limit: how many there may be.
    """

    def __init__(self, services: AppServices, tasks: Tasks, *, limit: int) -> None:
        self._services = services
        self._tasks = tasks
        self._limit = limit
        self._connections: set[AppConnection] = set()
        services.visits.on_end = self._on_visit_end

    def __len__(self) -> int:
        """Browsers' connections open right now."""
        return len(self._connections)

    def outcome(self, head: RequestHead, peer: str) -> Outcome | None:
        """What becomes of a connection by its first request; None if it is not for us."""
        if self._services.domain.session_of(head.get("host")) is None:
            return None
        if len(self._connections) >= self._limit:
            return Answer.problem(503, "This relay is full. Try again in a moment.")
        return HandOver(lambda transport, data: self._take(transport, data, peer))

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.close()
        self._services.tunnels.close()

    def _on_visit_end(self, visit: Visit) -> None:
        self._services.rights.forget(visit.admission)
        self._services.tunnels.close(visit.admission.session_id)

    def _take(self, transport: asyncio.Transport, data: bytes, peer: str) -> None:
        connection = AppConnection(self._services, adopt(transport), peer)
        self._connections.add(connection)

        async def serve() -> None:
            try:
                await connection.run(data)
            finally:
                self._connections.discard(connection)

        self._tasks.spawn(f"browser {peer}", serve(), on_crash=connection.close)


def app_services(
    settings: VncProxySettings,
    control: ControlPlane,
    clock: Clock,
    *,
    rate: UpgradeRate,
    visits: Visits,
    tunnels: AppTunnels,
) -> AppServices:
    """What connections are served with, by the settings."""
    domain = AppsDomain(settings.apps_domain)
    key = settings.cookie_key
    passes = Passes(
        key.get_secret_value().encode() if key is not None else secrets.token_bytes(32),
        lifetime=settings.pass_lifetime,
        secure=settings.apps_scheme == "https",
    )
    rights = Rights(control, clock.monotonic, interval=settings.recheck_interval)
    entrance = Entrance(
        domain=domain,
        passes=passes,
        rights=rights,
        control=control,
        clock=clock,
        allowed_origins=settings.allowed_origins,
        ticket_timeout=settings.ticket_timeout,
    )
    return AppServices(
        domain=domain,
        scheme=settings.apps_scheme,
        trusted_proxies=settings.trusted_proxies,
        rate=rate,
        clock=clock,
        entrance=entrance,
        passes=passes,
        rights=rights,
        visits=visits,
        tunnels=tunnels,
    )
