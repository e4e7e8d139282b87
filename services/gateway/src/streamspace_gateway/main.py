"""Builds the gateway and runs it."""

import socket

from streamspace_common.bus import Bus
from streamspace_common.contracts.identity import TOKEN_AUDIENCE, TOKEN_ISSUER
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.requests import AuthMethods, Empty, KeySet
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import Supervisor, run_service
from streamspace_common.web import health
from streamspace_common.web.principal import TokenVerifier
from streamspace_gateway.app import create_app
from streamspace_gateway.asking import Asking
from streamspace_gateway.deps import State
from streamspace_gateway.live import EventFeed
from streamspace_gateway.rates import RateLimiter
from streamspace_gateway.settings import GatewaySettings

SERVICE = "gateway"


async def serve(settings: GatewaySettings) -> None:
    """Run until a signal."""
    supervisor = Supervisor(SERVICE, drain_timeout=settings.drain_timeout)
    bus = await Bus.connect(
        settings.nats_url,
        name=f"{SERVICE}/{socket.gethostname()}",
        credentials=settings.nats_credentials,
        ca_file=settings.nats_ca_file,
        inbox=SERVICES[SERVICE].inbox,
        on_closed=lambda: supervisor.fail("the connection to NATS was closed for good"),
    )
    feed = EventFeed(bus, memory=settings.feed_memory)
    state = State(
        services=Asking(bus),
        feed=feed,
        verifier=TokenVerifier(lambda: _keys(bus), issuer=TOKEN_ISSUER, audience=TOKEN_AUDIENCE),
        rates=RateLimiter(
            {
                "create": settings.create_rate,
                "connect": settings.connect_rate,
                "catalog": settings.catalog_rate,
            }
        ),
        settings=settings,
    )
    checks = health.Health()
    checks.add("bus", lambda: bus.connected)
    checks.add("events", lambda: feed.ready)
    supervisor.on_draining(checks.drain)
    supervisor.spawn("event feed", feed.run)

    probes = await health.serve(
        health.create_app(checks, SERVICE), settings.health_host, settings.health_port
    )
    server = await health.serve(create_app(state), settings.listen_host, settings.listen_port)
    logging.get_logger(__name__).info(
        "serving", host=settings.listen_host, port=server.port, health_port=probes.port
    )

    supervisor.on_drain("event streams", lambda: _close(feed))
    supervisor.on_drain("requests", server.stop)
    supervisor.on_drain("bus", bus.drain)
    supervisor.on_drain("probes", probes.stop)
    await supervisor.run()


async def _keys(bus: Bus) -> KeySet:
    return await bus.call(AuthMethods.JWKS, Empty())


async def _close(feed: EventFeed) -> None:
    feed.close()


def main() -> None:
    settings = load(GatewaySettings)
    logging.configure(SERVICE, settings.log_level, settings.log_format)
    tracing.configure(SERVICE, settings.otlp_endpoint, settings.otlp_sample_ratio)
    run_service(lambda: serve(settings))


if __name__ == "__main__":
    main()
