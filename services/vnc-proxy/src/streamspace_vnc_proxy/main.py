"""Builds the vnc-proxy and runs it."""

import asyncio
import socket
from dataclasses import dataclass

from streamspace_common.bus import Bus, StartAt
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.relay.keepalive import Keepalive
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.clock import Clock, SystemClock
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import Supervisor, run_service
from streamspace_common.web import health
from streamspace_vnc_proxy import latency
from streamspace_vnc_proxy.activity import ActivityReporter
from streamspace_vnc_proxy.apps.pool import AppTunnels
from streamspace_vnc_proxy.apps.port import Apps, app_services
from streamspace_vnc_proxy.apps.visits import Visits
from streamspace_vnc_proxy.control_plane import BusControlPlane
from streamspace_vnc_proxy.domain import Close
from streamspace_vnc_proxy.endings import WATCHED, Endings, Rechecks
from streamspace_vnc_proxy.front import DataPort
from streamspace_vnc_proxy.handover import HandOvers
from streamspace_vnc_proxy.opening import Arrival, Opener
from streamspace_vnc_proxy.policy import UpgradeRate
from streamspace_vnc_proxy.ports import ControlPlane
from streamspace_vnc_proxy.router import Gate, Router
from streamspace_vnc_proxy.settings import VncProxySettings
from streamspace_vnc_proxy.streams import Streams
from streamspace_vnc_proxy.tasks import Tasks
from streamspace_vnc_proxy.tunnels import AwaitedTunnels, Peers

SERVICE = "vnc-proxy"
_GOODBYE = 5.0
"""Seconds viewers get to take the news that the relay restarts."""

log = logging.get_logger(__name__)


class Relay:
    """The data plane: everything that lives between the data port and the control plane."""

    def __init__(self, settings: VncProxySettings, control: ControlPlane, clock: Clock) -> None:
        self._settings = settings
        self.tasks = Tasks()
        self.hand_overs = HandOvers()
        self.keepalive = Keepalive(interval=settings.ping_interval, timeout=settings.pong_timeout)
        self.streams = Streams(
            clock.monotonic,
            per_session=settings.max_viewers_per_session,
            limit=settings.max_streams,
        )
        self.tunnels: AwaitedTunnels[Arrival] = AwaitedTunnels(
            clock.monotonic,
            replica=settings.replica_address,
            limit=settings.max_opening,
            ttl=settings.open_timeout,
        )
        rate = UpgradeRate(settings.upgrades_per_minute, clock.monotonic)
        opener = Opener(
            control=control,
            streams=self.streams,
            tunnels=self.tunnels,
            keepalive=self.keepalive,
            clock=clock,
            dial_base=settings.dial_base,
            ticket_timeout=settings.ticket_timeout,
            open_timeout=settings.open_timeout,
        )
        self.visits = Visits(self.streams, clock.monotonic)
        services = app_services(
            settings,
            control,
            clock,
            rate=rate,
            visits=self.visits,
            tunnels=AppTunnels(opener.reach, self.keepalive),
        )
        self.apps = Apps(services, self.tasks, limit=settings.max_streams)
        self.port = DataPort(
            Router(
                gate=Gate(
                    allowed_origins=settings.allowed_origins,
                    trusted_proxies=settings.trusted_proxies,
                    peers=Peers(settings.peer_hosts, port=settings.listen_port),
                    rate=rate,
                ),
                opener=opener,
                tunnels=self.tunnels,
                hand_overs=self.hand_overs,
                tasks=self.tasks,
                apps=self.apps,
            )
        )

    async def close_streams(self) -> None:
        """Send all viewers to another replica, or to this one when it is back."""
        self.streams.close_all(Close.RESTARTING, "The relay restarts. Reconnecting.")
        self.apps.close()
        await self.hand_overs.close()
        await self.tasks.finish(_GOODBYE)


@dataclass(frozen=True)
class Running:
    """A started service: its data plane and where it listens."""

    relay: Relay
    port: int
    health_port: int


async def start(settings: VncProxySettings, supervisor: Supervisor) -> Running:
    """Build everything, take connections, and register how it ends with the supervisor."""
    bus = await Bus.connect(
        settings.nats_url,
        name=f"{SERVICE}/{socket.gethostname()}",
        credentials=settings.nats_credentials,
        ca_file=settings.nats_ca_file,
        inbox=SERVICES[SERVICE].inbox,
        on_closed=lambda: supervisor.fail("the connection to NATS was closed for good"),
    )
    clock = SystemClock()
    control = BusControlPlane(bus, source=SERVICE)
    relay = Relay(settings, control, clock)
    reporter = ActivityReporter(
        relay.streams, control.report, clock, interval=settings.activity_interval
    )
    endings = Endings(relay.streams, lambda: bus.tail(EVENTS.name, WATCHED, start=StartAt.new()))
    rechecks = Rechecks(relay.streams, control, interval=settings.recheck_interval)
    supervisor.spawn("keepalive", relay.keepalive.run)
    supervisor.spawn("activity", reporter.run)
    supervisor.spawn("session endings", endings.run)
    supervisor.spawn("rechecks", rechecks.run)
    supervisor.spawn("visits", relay.visits.run)
    supervisor.spawn("latency", latency.probe)

    checks = health.Health()
    checks.add("bus", lambda: bus.connected)
    checks.add("data port", lambda: relay.port.listening)
    supervisor.on_draining(checks.drain)
    probes = await health.serve(
        health.create_app(checks, SERVICE), settings.health_host, settings.health_port
    )
    await relay.port.open(settings.listen_host, settings.listen_port)

    supervisor.on_drain("notice", lambda: asyncio.sleep(settings.drain_notice))
    supervisor.on_drain("data port", relay.port.close)
    supervisor.on_drain("streams", relay.close_streams)
    supervisor.on_drain("last activity", lambda: _report_last(reporter))
    supervisor.on_drain("bus", bus.drain)
    supervisor.on_drain("probes", probes.stop)
    return Running(relay, relay.port.port, probes.port)


async def serve(settings: VncProxySettings) -> None:
    """Run until a signal."""
    supervisor = Supervisor(SERVICE, drain_timeout=settings.drain_timeout)
    running = await start(settings, supervisor)
    log.info(
        "serving",
        host=settings.listen_host,
        port=running.port,
        health_port=running.health_port,
    )
    await supervisor.run()


async def _report_last(reporter: ActivityReporter) -> None:
    await reporter.report_left()


def main() -> None:
    settings = load(VncProxySettings)
    logging.configure(SERVICE, settings.log_level, settings.log_format)
    tracing.configure(SERVICE, settings.otlp_endpoint, settings.otlp_sample_ratio)
    run_service(lambda: serve(settings))


if __name__ == "__main__":
    main()
