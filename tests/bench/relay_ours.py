"""Our relay as a process of its own, for the bench: everything real but the control plane.

It admits whoever comes and prints the request for a tunnel that an agent would get, one
JSON document a line, for the bench to play the agent.
"""

import sys

import uvloop

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.events import SessionActivity
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.requests import Admission, AdmissionState
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.runtime import logging
from streamspace_common.runtime.clock import SystemClock
from streamspace_vnc_proxy.main import Relay
from streamspace_vnc_proxy.settings import VncProxySettings


class OpenControl:
    """Lets everybody in, and tells the bench which tunnel to dial."""

    async def redeem(self, session: SessionId, ticket: str, *, timeout: float) -> Admission:
        return Admission(
            session_id=session,
            user_id=UserId("usr-" + "0" * 32),
            username="bench",
            role=ViewerRole.CONTROL,
            cluster_id=ClusterId("bench"),
            protocol=Protocol.VNC,
            port=5900,
        )

    async def check(self, session: SessionId, user: UserId, *, timeout: float) -> AdmissionState:
        return AdmissionState(allowed=True, state=SessionState.RUNNING)

    async def open_tunnel(
        self, cluster: ClusterId, request: OpenTunnel, *, timeout: float
    ) -> TunnelOpened:
        print(request.to_json().decode(), flush=True)
        return TunnelOpened(tunnel_id=request.tunnel_id, instance="bench")

    async def report(self, activity: SessionActivity) -> bool:
        return True


async def main(port: int) -> None:
    logging.configure("vnc-proxy", "ERROR", "json")
    settings = VncProxySettings(
        listen_port=port,
        tunnel_url=f"ws://127.0.0.1:{port}",
        max_viewers_per_session=1000,
        upgrades_per_minute=100_000,
    )
    relay = Relay(settings, OpenControl(), SystemClock())
    await relay.port.open(settings.listen_host, settings.listen_port)
    await relay.keepalive.run()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
