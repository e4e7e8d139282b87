"""The process: settings, connections, the service, probes, and the order of its end."""

import socket

from streamspace_common.bus import Bus
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import Supervisor, run_service
from streamspace_common.store.engine import Database
from streamspace_common.store.migrate import migrate
from streamspace_common.web.health import Health, create_app, serve
from streamspace_session.service import SessionService
from streamspace_session.settings import SessionSettings

NAME = "session"


async def run(settings: SessionSettings) -> None:
    """Run until a signal or a fatal error."""
    log = logging.get_logger(__name__)
    supervisor = Supervisor(NAME, drain_timeout=settings.drain_timeout)
    health = Health()
    supervisor.on_draining(health.drain)
    url = settings.database_url.get_secret_value()
    await migrate(url, "streamspace_session")
    database = Database.connect(
        url, pool_size=settings.database_pool_size, application=f"streamspace-{NAME}"
    )
    bus = await Bus.connect(
        settings.nats_url,
        name=f"{NAME}/{socket.gethostname()}",
        credentials=settings.nats_credentials,
        ca_file=settings.nats_ca_file,
        inbox=SERVICES[NAME].inbox,
        on_closed=lambda: supervisor.fail("The connection to NATS was closed for good."),
    )
    health.add("database", database.ping)
    health.add("bus", lambda: bus.connected)
    service = SessionService(settings, bus, database)
    await service.start(supervisor)
    server = await serve(create_app(health, NAME), settings.health_host, settings.health_port)
    log.info("session.ready", health=f"http://{server.host}:{server.port}")
    supervisor.on_drain("bus", bus.drain)
    supervisor.on_drain("probes", server.stop)
    try:
        await supervisor.run()
    finally:
        await bus.close()
        await database.dispose()


def main() -> None:
    """Console script `streamspace-session`."""
    settings = load(SessionSettings)
    logging.configure(NAME, settings.log_level, settings.log_format)
    tracing.configure(NAME, settings.otlp_endpoint, settings.otlp_sample_ratio)
    run_service(lambda: run(settings))
