"""Builds the auth service and runs it."""

import socket
from dataclasses import dataclass
from datetime import timedelta

from pwdlib.hashers import HasherProtocol

from streamspace_auth import first_start, housekeeping
from streamspace_auth.access import BusAccess, NatsServers
from streamspace_auth.domain.families import FamilyRules
from streamspace_auth.domain.logins import FailureLimit
from streamspace_auth.enrolment import NatsEnroller, Place, read_authorities, read_authority
from streamspace_auth.handlers import methods, methods_for_clusters
from streamspace_auth.handlers.clusters import Clusters
from streamspace_auth.handlers.credentials import CredentialCheck
from streamspace_auth.handlers.signin import SignIn
from streamspace_auth.handlers.users import Users
from streamspace_auth.keyring import KeyRing
from streamspace_auth.meters import LoginCounter
from streamspace_auth.passwords import Argon2Passwords
from streamspace_auth.ports import AccountServers
from streamspace_auth.sealing import Seal
from streamspace_auth.settings import SERVICE, AuthSettings, decode_encryption_key
from streamspace_auth.store import AuthStore
from streamspace_auth.throttle import AddressThrottle
from streamspace_auth.tokens import KeyRules
from streamspace_common.bus import Bus
from streamspace_common.bus.errors import BusUnavailableError
from streamspace_common.contracts import permissions
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import FatalError, Supervisor, run_service
from streamspace_common.store.engine import Database
from streamspace_common.store.errors import StoreUnavailableError
from streamspace_common.store.migrate import migrate
from streamspace_common.store.outbox import OutboxRelay
from streamspace_common.web import health as web_health
from streamspace_common.web.health import Health

PACKAGE = "streamspace_auth"
CONCURRENCY = 512
"""Requests in work at once. Many, since logins queue for the few hash threads, and must not
keep quick requests (`refresh`, `jwks`) from their turn."""

log = logging.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What runs, wired together but not started."""

    store: AuthStore
    passwords: Argon2Passwords
    throttle: AddressThrottle
    keys: KeyRing
    enroller: NatsEnroller
    access: BusAccess
    sign_in: SignIn
    users: Users
    clusters: Clusters

    def close(self) -> None:
        self.passwords.close()
        self.throttle.close()


def build(
    settings: AuthSettings,
    database: Database,
    servers: AccountServers,
    *,
    hasher: HasherProtocol | None = None,
) -> Parts:
    """Wire the service; `hasher` other than the recommended one is for tests.

    Raises:
        FatalError: the file with the bus' authority is no good.
    """
    window = timedelta(seconds=settings.login_window)
    seal = Seal(decode_encryption_key(settings.encryption_key))
    access = BusAccess(read_authority(settings.bus_authority_file), servers)
    enroller = NatsEnroller(
        seal,
        place=_place(settings),
        places=_places(settings),
        certificate_authorities=read_authorities(
            settings.enrolment_ca_file or settings.nats_ca_file
        ),
    )
    store = AuthStore(database)
    passwords = Argon2Passwords(threads=settings.hash_threads, hasher=hasher)
    throttle = AddressThrottle(FailureLimit(settings.login_tries_per_address, window))
    keys = KeyRing(
        store,
        seal,
        KeyRules(
            rotate_after=timedelta(seconds=settings.signing_key_lifetime),
            token_lifetime=timedelta(seconds=settings.access_token_lifetime),
        ),
    )
    credentials = CredentialCheck(
        store,
        passwords,
        throttle,
        limit=FailureLimit(settings.login_tries, window),
        at_once=settings.hash_threads,
    )
    rules = FamilyRules(
        sliding=timedelta(seconds=settings.refresh_token_lifetime),
        absolute=timedelta(seconds=settings.sign_in_lifetime),
    )
    return Parts(
        store=store,
        passwords=passwords,
        throttle=throttle,
        keys=keys,
        enroller=enroller,
        access=access,
        sign_in=SignIn(store, credentials, keys, LoginCounter(), rules=rules),
        users=Users(store, passwords, credentials),
        clusters=Clusters(
            store,
            enroller,
            access,
            credential_lifetime=timedelta(seconds=settings.agent_credential_lifetime),
        ),
    )


def _place(settings: AuthSettings) -> Place:
    """Where agents find the control plane."""
    urls = settings.enrolment_nats_urls or tuple(settings.nats_url.split(","))
    return Place(urls, settings.enrolment_tunnel_url)


def _places(settings: AuthSettings) -> dict[ClusterId, Place]:
    """Clusters whose agents find it elsewhere."""
    if settings.first_cluster is None:
        return {}
    usual = _place(settings)
    return {
        ClusterId(settings.first_cluster): Place(
            settings.first_cluster_nats_urls or usual.nats_urls,
            settings.first_cluster_tunnel_url or usual.tunnel_url,
        )
    }


async def prepare(settings: AuthSettings, parts: Parts) -> None:
    """Everything that has to be there before the first request."""
    await parts.keys.refresh()
    try:
        await parts.access.reconcile(parts.store)
    except ProblemError as error:
        raise FatalError(
            f"Clusters' accounts cannot be given to the bus: {error.problem.detail}"
        ) from error
    given = settings.admin_password
    await first_start.ensure_admin(
        parts.store,
        parts.passwords,
        password=given.get_secret_value() if given else None,
        reveal=first_start.password_writer(settings.admin_password_file),
    )
    if settings.first_cluster is not None and settings.first_cluster_file is not None:
        await first_start.ensure_first_cluster(
            parts.store,
            parts.enroller,
            parts.access,
            ClusterId(settings.first_cluster),
            settings.first_cluster_file,
        )


async def run(settings: AuthSettings) -> None:
    """Run until a signal."""
    url = settings.database_url.get_secret_value()
    await migrate(url, PACKAGE)
    database = Database.connect(url, pool_size=settings.database_pool_size, application=SERVICE)
    supervisor = Supervisor(SERVICE, drain_timeout=settings.drain_timeout)
    try:
        # Read before waiting for anybody: what is wrong with it is told at once.
        read_authority(settings.bus_authority_file)
        servers = await _connect_to_servers(settings, supervisor)
        parts = build(settings, database, NatsServers(servers))
        try:
            await prepare(settings, parts)
            await _serve(settings, database, parts, servers, supervisor)
        finally:
            parts.close()
    except (StoreUnavailableError, BusUnavailableError) as error:
        raise FatalError(f"Lost what it needs while starting: {error}. Start it again.") from error
    finally:
        await database.dispose()


async def _connect_to_servers(settings: AuthSettings, supervisor: Supervisor) -> Bus:
    """A second connection: accounts are the servers' business, not the services'."""
    return await Bus.connect(
        settings.nats_url,
        name=f"{SERVICE}-accounts/{socket.gethostname()}",
        credentials=settings.bus_accounts_credentials,
        ca_file=settings.nats_ca_file,
        inbox=permissions.ACCOUNTS.inbox,
        on_closed=lambda: supervisor.fail("The connection to NATS was closed for good."),
    )


async def _serve(
    settings: AuthSettings, database: Database, parts: Parts, servers: Bus, supervisor: Supervisor
) -> None:
    bus = await Bus.connect(
        settings.nats_url,
        name=f"{SERVICE}/{socket.gethostname()}",
        credentials=settings.nats_credentials,
        ca_file=settings.nats_ca_file,
        inbox=permissions.SERVICES[SERVICE].inbox,
        on_closed=lambda: supervisor.fail("The connection to NATS was closed for good."),
    )
    relay = OutboxRelay(database, bus)
    served = await bus.serve(
        SERVICE, methods(parts.sign_in, parts.users, parts.clusters), concurrency=CONCURRENCY
    )
    joining = await bus.serve_clusters(f"{SERVICE}-agents", methods_for_clusters(parts.clusters))

    health = Health()
    health.add("database", database.ping)
    health.add("bus", lambda: bus.connected)
    probes = await web_health.serve(
        web_health.create_app(health, SERVICE), settings.health_host, settings.health_port
    )

    servers.link.on_reconnected(parts.access.wake)
    supervisor.spawn("outbox", relay.run)
    supervisor.spawn("signing-keys", parts.keys.keep_fresh)
    supervisor.spawn("accounts", lambda: parts.access.keep_true(parts.store))
    supervisor.spawn("housekeeping", lambda: housekeeping.keep_clean(parts.store))
    supervisor.on_draining(health.drain)
    # Events still in the outbox then are published by another replica, or at the next start.
    supervisor.on_drain("requests", served.stop)
    supervisor.on_drain("agents' requests", joining.stop)
    supervisor.on_drain("bus", bus.drain)
    supervisor.on_drain("servers", servers.close)
    supervisor.on_drain("probes", probes.stop)
    log.info("ready", health_port=probes.port)
    await supervisor.run()


def main() -> None:
    """Console script `streamspace-auth`."""
    settings = load(AuthSettings)
    logging.configure(SERVICE, settings.log_level, settings.log_format)
    tracing.configure(SERVICE, settings.otlp_endpoint, settings.otlp_sample_ratio)
    run_service(lambda: run(settings))


if __name__ == "__main__":
    main()
