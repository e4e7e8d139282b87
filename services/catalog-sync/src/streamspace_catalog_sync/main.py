"""Builds catalog-sync and runs it."""

import os
import socket

from streamspace_catalog_sync import manifest
from streamspace_catalog_sync.addresses import AddressRules
from streamspace_catalog_sync.handlers import CatalogHandlers
from streamspace_catalog_sync.sealing import TokenVault
from streamspace_catalog_sync.settings import Settings
from streamspace_catalog_sync.source.git import GitSource
from streamspace_catalog_sync.source.limits import Limits
from streamspace_catalog_sync.source.starter import starter_snapshot
from streamspace_catalog_sync.store import CatalogStore, SyncStore, TemplateStore
from streamspace_catalog_sync.syncing import Republisher, Syncer
from streamspace_common.bus import Bus
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import Supervisor, run_service
from streamspace_common.store.engine import Database
from streamspace_common.store.migrate import migrate
from streamspace_common.store.outbox import OutboxRelay
from streamspace_common.web import health

SERVICE = "catalog-sync"
PACKAGE = "streamspace_catalog_sync"
log = logging.get_logger(__name__)


async def run(settings: Settings, supervisor: Supervisor) -> None:
    """Serve until the supervisor is told to stop.

    The end, in order: no new requests; running syncs are given back; what they wrote is
    left in the outbox for the next start; then the bus and the database are closed.
    """
    url = settings.database_url.get_secret_value()
    await migrate(url, PACKAGE)
    database = Database.connect(url, pool_size=settings.database_pool_size, application=SERVICE)
    bus = await Bus.connect(
        settings.nats_url,
        name=f"{SERVICE}/{socket.gethostname()}-{os.getpid()}",
        credentials=settings.nats_credentials,
        ca_file=settings.nats_ca_file,
        inbox=SERVICES[SERVICE].inbox,
        on_closed=lambda: supervisor.fail("The connection to NATS is closed for good."),
    )
    relay = OutboxRelay(database, bus)
    database.on_commit(relay.wake)

    rules = AddressRules(local_paths=settings.local_paths, plain_http=settings.plain_http)
    vault = TokenVault(settings.token_key)
    catalogs = CatalogStore(database)
    syncs = SyncStore(database, interval=settings.sync_interval, rules=manifest.rules_digest())
    await catalogs.keep_starter(
        wanted=settings.starter,
        commit=starter_snapshot().commit,
        rules=manifest.rules_digest(),
    )
    syncer = Syncer(
        syncs,
        _git_source(settings),
        starter=starter_snapshot,
        vault=vault,
        corrections=manifest.shipped_corrections(),
        rules=rules,
        deadline=settings.read_deadline,
        slots=settings.concurrent_syncs,
    )
    republisher = Republisher(
        syncs,
        after=settings.republish_after,
        everything_first=settings.republish_at_start,
    )
    handlers = CatalogHandlers(
        TemplateStore(database), catalogs, vault=vault, rules=rules, wake=syncer.wake
    )

    probes = health.Health()
    probes.add("database", database.ping)
    probes.add("bus", lambda: bus.connected)
    served = await bus.serve(SERVICE, handlers.methods())
    server = await health.serve(
        health.create_app(probes, SERVICE), settings.health_host, settings.health_port
    )
    log.info("ready", health_port=server.port)

    supervisor.spawn("outbox", relay.run)
    supervisor.spawn("syncs", syncer.run)
    supervisor.spawn("republish", republisher.run)
    supervisor.on_draining(probes.drain)
    supervisor.on_drain("requests", served.stop)
    supervisor.on_drain("syncs", syncer.stop)
    supervisor.on_drain("health", server.stop)
    supervisor.on_drain("bus", bus.drain)
    try:
        await supervisor.run()
    finally:
        await bus.close()
        await database.dispose()


def _git_source(settings: Settings) -> GitSource:
    limits = Limits(deadline=settings.read_deadline, silence=settings.silence_timeout)
    return GitSource(
        settings.data_dir / "repositories",
        limits=limits,
        private_addresses=settings.private_addresses,
        ssh_key=settings.ssh_key,
    )


async def serve() -> None:
    """Read the settings and run until told to stop."""
    settings = load(Settings)
    logging.configure(SERVICE, settings.log_level, settings.log_format)
    tracing.configure(SERVICE, settings.otlp_endpoint, settings.otlp_sample_ratio)
    await run(settings, Supervisor(SERVICE, drain_timeout=settings.drain_timeout))


def main() -> None:
    """Console script."""
    run_service(serve)
