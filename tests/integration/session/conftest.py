"""A session service on a real NATS and PostgreSQL, with scripted agents as the other side.

Nothing in here is faked but the agents' runtimes. Limits of time are short where a
test is about them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from streamspace_common.bus import Bus, StartAt
from streamspace_common.contracts.catalog import (
    Connection,
    EnvVar,
    Metadata,
    ProcessSpec,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.commands import COMMAND
from streamspace_common.contracts.events import (
    ClusterEnrolled,
    Event,
    SessionStateChanged,
    TemplatePublished,
    UserChanged,
    parse_event,
)
from streamspace_common.contracts.identity import Principal, Role, User, system_actor
from streamspace_common.contracts.ids import (
    CatalogId,
    ClusterId,
    SessionId,
    new_message_id,
    template_id,
)
from streamspace_common.contracts.requests import (
    CreateSession,
    DeleteSession,
    GetCluster,
    Method,
    SessionAccepted,
    SessionMethods,
    SessionRequest,
)
from streamspace_common.contracts.sessions import Session, SessionState
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.store.engine import Database
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.scripted_agent import ScriptedAgent
from streamspace_common.testing.waiting import eventually
from streamspace_session.service import SessionService
from streamspace_session.settings import SessionSettings

ACTOR = system_actor("test")


def _principal(name: str, role: Role = Role.USER) -> Principal:
    return Principal(user_id=f"usr-{name.encode().hex():0<32}"[:36], username=name, role=role)


ADMIN = _principal("admin", Role.ADMIN)


@dataclass
class Replica:
    """One running replica of the service, with connections of its own."""

    service: SessionService
    bus: Bus
    database: Database
    supervisor: Supervisor
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.supervisor.stop()
        await self.task
        await self.bus.close()
        await self.database.dispose()


@dataclass
class World:
    """What the tests see: clients of the service, its clusters and agents, its events."""

    nats: NatsServer
    database_url: str
    bus: Bus
    database: Database
    replicas: list[Replica] = field(default_factory=list)
    agents: list[ScriptedAgent] = field(default_factory=list)
    connections: list[Bus] = field(default_factory=list)
    admin: Principal = ADMIN
    settings: dict[str, Any] = field(default_factory=dict)
    admin_actor: Any = ACTOR

    def user(self, name: str, role: Role = Role.USER) -> Principal:
        return _principal(name, role)

    async def start(self, **settings: Any) -> Replica:
        """Start a replica; settings given once hold for later ones too."""
        self.settings |= settings
        loaded = SessionSettings(
            nats_url=self.nats.url,
            database_url=self.database_url,
            **{"sweep_interval": 0.05, "inventory_grace": 0.0, **self.settings},
        )
        bus = await Bus.connect(self.nats.url, name="session")
        database = Database.connect(self.database_url, pool_size=10)
        supervisor = Supervisor("session", drain_timeout=5)
        service = SessionService(loaded, bus, database)
        await service.start(supervisor)
        task = asyncio.create_task(supervisor.run(), name="session")
        replica = Replica(service, bus, database, supervisor, task)
        self.replicas.append(replica)
        return replica

    async def stop_service(self) -> None:
        while self.replicas:
            await self.replicas.pop().stop()

    async def agent(self, cluster: str = "lab", **script: Any) -> ScriptedAgent:
        """Enrol a cluster where it is not, and have an agent of it online."""
        await self.enrol(cluster)
        agent = await self.silent_agent(cluster, **script)
        # It holds nothing, and an inventory that says so would race with the first session.
        await agent.start(inventory=False)
        await eventually(lambda: self.is_(cluster, Presence.ONLINE), message=f"{cluster} online")
        return agent

    async def silent_agent(self, cluster: str = "lab", **script: Any) -> ScriptedAgent:
        bus = await Bus.connect(self.nats.url, name=f"agent-{cluster}")
        self.connections.append(bus)
        agent = ScriptedAgent(bus, ClusterId(cluster), **script)
        self.agents.append(agent)
        return agent

    async def enrol(self, cluster: str) -> None:
        await self.publish(
            ClusterEnrolled(id=_id(), at=_now(), actor=ACTOR, cluster_id=cluster, name=cluster)
        )

        async def known() -> bool:
            with contextlib.suppress(Exception):
                return bool(await self.cluster(cluster))
            return False

        await eventually(known, message=f"{cluster} enrolled")

    async def cluster(self, cluster: str) -> Any:
        return await self.call(
            SessionMethods.GET_CLUSTER, GetCluster(principal=ADMIN, cluster_id=cluster)
        )

    async def is_(self, cluster: str, presence: Presence) -> bool:
        return (await self.cluster(cluster)).presence is presence

    async def template(
        self, name: str = "desktop", *, catalog: str = "starter", **spec: Any
    ) -> str:
        """Publish a template as catalog-sync does; returns once sessions can use it."""
        id_ = template_id(CatalogId(catalog), name)
        manifest = _manifest(name, **spec)
        unusable = spec.get("unusable")
        digest = f"sha256:{abs(hash(manifest.model_dump_json())):x}"
        await self.publish(
            TemplatePublished(
                id=_id(),
                at=_now(),
                actor=ACTOR,
                template_id=id_,
                catalog_id=catalog,
                name=name,
                digest=digest,
                manifest=manifest,
                unusable=unusable,
            )
        )

        async def known() -> bool:
            replica = self.replicas[0]
            async with replica.service.store.transaction() as tx:
                found = await tx.templates.find(id_)
            return bool(found) and found[0].digest == digest

        await eventually(known, message=f"{id_} in the projection")
        return id_

    async def account(self, user: Principal, *, disabled: bool) -> None:
        """Tell, as auth does, that an account was disabled or enabled."""
        account = User(
            id=user.user_id,
            username=user.username,
            role=user.role,
            disabled=disabled,
            created_at=_now(),
            updated_at=_now(),
            version=2,
        )
        changed = ("disabled",)
        await self.publish(
            UserChanged(
                id=_id(),
                at=_now(),
                actor=ACTOR,
                user_id=user.user_id,
                user=account,
                changed=changed,
            )
        )

    async def publish(self, event: Event) -> None:
        await self.bus.publish_event(event, source="test")

    async def call(self, method: Method[Any, Any], request: Any, *, timeout: float = 10.0) -> Any:
        return await self.bus.call(method, request, timeout=timeout)

    async def create(
        self, user: Principal = ADMIN, template: str = "starter_desktop", **asked: Any
    ) -> SessionAccepted:
        request = CreateSession(principal=user, address="192.0.2.7", template=template, **asked)
        return await self.call(SessionMethods.CREATE, request)

    async def get(self, session: str, user: Principal = ADMIN) -> Session:
        return await self.call(
            SessionMethods.GET, SessionRequest(principal=user, session_id=session)
        )

    async def ask(
        self, method: Method[Any, Any], session: str, user: Principal = ADMIN
    ) -> SessionAccepted:
        return await self.call(method, SessionRequest(principal=user, session_id=session))

    async def delete(
        self, session: str, user: Principal = ADMIN, *, delete_home: bool = False
    ) -> SessionAccepted:
        return await self.call(
            SessionMethods.DELETE,
            DeleteSession(principal=user, session_id=session, delete_home=delete_home),
        )

    async def commands(self, session: str) -> list[Any]:
        found = await self.call(
            SessionMethods.COMMANDS, SessionRequest(principal=ADMIN, session_id=session)
        )
        return list(found.items)

    async def reaches(self, session: str, *states: SessionState, timeout: float = 15.0) -> Session:
        """Wait until the session is in one of the states."""
        seen: list[Session] = []

        async def there() -> bool:
            seen.append(await self.get(session))
            assert seen[-1].state in states, f"is {seen[-1].state}: {seen[-1].message}"
            return True

        await eventually(there, timeout=timeout, message=f"{session} {states}")
        return seen[-1]

    async def running(self, user: Principal = ADMIN, **asked: Any) -> Session:
        accepted = await self.create(user, **asked)
        return await self.reaches(accepted.session.id, SessionState.RUNNING)

    async def history(self, session: str) -> list[Event]:
        """Every event of a session so far, in the stream's order."""
        end = await self.bus.last_sequence("EVENTS")
        events: list[Event] = []
        async with contextlib.aclosing(
            self.bus.tail("EVENTS", ["evt.>"], start=StartAt.all())
        ) as messages:
            async for message in messages:
                if f".session.{session}." in message.subject:
                    events.append(parse_event(message.type, message.payload))
                if message.sequence >= end:
                    break
        return events

    async def states(self, session: str) -> list[str]:
        """The states a session went through, as told by its events."""
        changes = [e for e in await self.history(session) if isinstance(e, SessionStateChanged)]
        return [change.to_state.value for change in changes]

    def _all_connections(self) -> list[Bus]:
        return [self.bus, *self.connections, *(replica.bus for replica in self.replicas)]

    async def told(self, session: str, *states: str) -> None:
        """Wait until the session's events tell of exactly these states.

        The outbox publishes what is committed, a moment after it is.
        """

        async def so() -> bool:
            assert await self.states(session) == list(states)
            return True

        await eventually(so, message=f"the events of {session} tell {states}")

    async def sent(self, session: str, action: str, cluster: str = "lab") -> None:
        """Wait until the stream holds this as the session's command."""

        async def there() -> bool:
            held = await self.bus.newest_command(ClusterId(cluster), SessionId(session))
            return held is not None and COMMAND.validate_json(held.payload).action == action

        await eventually(there, message=f"{action} of {session} in the stream")

    async def close(self) -> None:
        # A client that is just coming back from an outage cannot be closed cleanly.
        await eventually(lambda: all(bus.connected for bus in self._all_connections()))
        for agent in self.agents:
            await agent.stop()
        await self.stop_service()
        for bus in self.connections:
            await bus.close()
        await self.bus.close()
        await self.database.dispose()


def _manifest(
    name: str,
    *,
    process: bool = True,
    image: str | None = None,
    connection: Connection | None = None,
    resources: ResourceAmounts | None = None,
    unusable: str | None = None,
    **extra: Any,
) -> TemplateManifest:
    return TemplateManifest(
        metadata=Metadata(name=name),
        spec=TemplateSpec(
            display_name=name.title(),
            base_image=image,
            default_resources=resources or ResourceAmounts(cpu="500m", memory="512Mi"),
            env=(EnvVar(name="GREETING", value="hello"),),
            connection=connection or Connection(protocol=Protocol.VNC, port=5900),
            process=ProcessSpec(command=("xterm",)) if process else None,
            **extra,
        ),
    )


def _id() -> str:
    return str(new_message_id())


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def migrations_package() -> str:
    return "streamspace_session"


@pytest_asyncio.fixture
async def world(nats_server: NatsServer, database_url: str) -> AsyncIterator[World]:
    """Everything but the service, which each test starts with the settings it is about."""
    bus = await Bus.connect(nats_server.url, name="test")
    made = World(nats_server, database_url, bus, Database.connect(database_url, pool_size=2))
    try:
        yield made
    finally:
        await made.close()


@pytest_asyncio.fixture
async def lab(world: World) -> World:
    """A service with one cluster, `lab`, online, and one template."""
    await world.start()
    await world.template()
    await world.agent()
    return world
