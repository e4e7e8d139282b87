"""An installation: PostgreSQL, a NATS server in operator mode, and auth replicas on them.

Nothing is faked. Tests speak to auth as the gateway does, with the gateway's own
credential, over the bus. Only password hashing is made cheap.
"""

import asyncio
import base64
import secrets
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import jwt
from pwdlib.hashers.argon2 import Argon2Hasher

from streamspace_auth.access import NatsServers
from streamspace_auth.handlers import methods, methods_for_clusters
from streamspace_auth.main import Parts, build, prepare
from streamspace_auth.settings import AuthSettings
from streamspace_common.bus import Bus, Identity, StartAt, provision
from streamspace_common.bus.credentials import (
    Trust,
    account_credentials,
    server_config,
    service_credentials,
)
from streamspace_common.contracts.events import Event, parse_event
from streamspace_common.contracts.identity import Principal, Role, User
from streamspace_common.contracts.permissions import ACCOUNTS, SERVICES
from streamspace_common.contracts.requests import (
    AuthMethods,
    CreateUser,
    Empty,
    KeySet,
    LoginRequest,
    Method,
    RefreshRequest,
    Reply,
    Request,
    Tokens,
)
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import OutboxRelay
from streamspace_common.testing.nats import NatsServer
from streamspace_common.web.principal import TokenVerifier
from streamspace_embedded.ports import free_port

E = TypeVar("E", bound=Event)

ADMIN_PASSWORD = "correct horse battery staple"
PASSWORD = "a password of some length"


class Servers:
    """The NATS servers, as auth gives them accounts; while there are none, nobody is told."""

    def __init__(self, installation: "Installation") -> None:
        self._installation = installation
        self._real: NatsServers | None = None

    async def publish(self, token: str) -> None:
        if not self._installation.nats.running:
            return
        if self._real is None:
            path = self._installation.settings().bus_accounts_credentials
            bus = await self._installation.connect_with(path, ACCOUNTS.inbox)
            self._real = NatsServers(bus)
        await self._real.publish(token)


class Installation:
    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.trust = Trust.new()
        port = free_port()
        config = server_config(self.trust, port=port, store_dir=folder / "nats" / "store")
        self.nats = NatsServer(folder / "nats", config=config, port=port)
        self.encryption_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._buses: list[Bus] = []
        self._running: list[tuple[Any, asyncio.Task[None], Parts, Database]] = []
        self.gateway: Bus
        self.admin: Principal

    def settings(self, **changes: Any) -> AuthSettings:
        authority = self.folder / "bus-authority.json"
        authority.write_bytes(self.trust.authority.to_json())
        accounts = self.folder / "bus-accounts.creds"
        accounts.write_text(account_credentials(self.trust))
        given: dict[str, Any] = {
            "database_url": self.database_url,
            "nats_url": self.nats.url,
            "encryption_key": self.encryption_key,
            "admin_password": ADMIN_PASSWORD,
            "bus_authority_file": authority,
            "bus_accounts_credentials": accounts,
            "enrolment_tunnel_url": "ws://127.0.0.1:8081",
        }
        return AuthSettings(**(given | changes))

    async def connect(self, service: str) -> Bus:
        path = self.folder / f"{service}-{secrets.token_hex(4)}.creds"
        path.write_text(service_credentials(self.trust.services, service))
        return await self.connect_with(path, SERVICES[service].inbox)

    async def connect_with(
        self, credentials: Path | Identity, inbox: str, url: str | None = None, **more: Any
    ) -> Bus:
        bus = await Bus.connect(
            url or self.nats.url, name="test", credentials=credentials, inbox=inbox, **more
        )
        self._buses.append(bus)
        return bus

    async def start(self, **changes: Any) -> None:
        self.nats.start()
        await provision(await self.connect("session"))
        await self.replica(**changes)
        self.gateway = await self.connect("gateway")
        tokens = await self.login("admin", ADMIN_PASSWORD)
        self.admin = await self.verified(tokens)

    def parts(self, **changes: Any) -> tuple[Parts, Database]:
        """Another replica's insides, not started; closed with the installation."""
        settings = self.settings(**changes)
        database = Database.connect(self.database_url, pool_size=5, application="auth")
        cheap = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)
        return build(settings, database, Servers(self), hasher=cheap), database

    async def replica(self, **changes: Any) -> Parts:
        parts, database = self.parts(**changes)
        await prepare(self.settings(**changes), parts)
        bus = await self.connect("auth")
        relay = asyncio.create_task(OutboxRelay(database, bus).run())
        served = [
            await bus.serve("auth", methods(parts.sign_in, parts.users, parts.clusters)),
            await bus.serve_clusters("auth-agents", methods_for_clusters(parts.clusters)),
        ]
        self._running.append((served, relay, parts, database))
        return parts

    async def leave(self) -> None:
        """End all replicas; what they hold stays."""
        for served, relay, parts, database in self._running:
            for each in served:
                await each.stop()
            relay.cancel()
            with suppress(asyncio.CancelledError):
                await relay
            parts.close()
            await database.dispose()
        self._running.clear()

    async def stop(self) -> None:
        await self.leave()
        for bus in self._buses:
            await bus.close()
        self.nats.stop()

    async def call(self, method: Method[Request, Reply], request: Request) -> Reply:
        return await self.gateway.call(method, request, timeout=10)

    async def login(
        self, username: str, password: str = PASSWORD, address: str | None = "192.0.2.1"
    ) -> Tokens:
        return await self.call(
            AuthMethods.LOGIN, LoginRequest(username=username, password=password, address=address)
        )

    async def refresh(self, token: str) -> Tokens:
        return await self.call(
            AuthMethods.REFRESH, RefreshRequest(refresh_token=token, address="192.0.2.1")
        )

    async def create(self, username: str, role: Role = Role.USER, **fields: Any) -> User:
        return await self.call(
            AuthMethods.CREATE_USER,
            CreateUser(
                principal=self.admin,
                username=username,
                password=fields.pop("password", PASSWORD),
                role=role,
                address="192.0.2.9",
                **fields,
            ),
        )

    async def signed_in(self, username: str, role: Role = Role.USER) -> tuple[User, Principal]:
        """A new user who has signed in."""
        user = await self.create(username, role)
        return user, await self.verified(await self.login(username))

    async def verified(self, tokens: Tokens) -> Principal:
        """What the gateway makes of an access token."""

        async def keys() -> KeySet:
            return await self.call(AuthMethods.JWKS, Empty())

        verifier = TokenVerifier(keys, issuer="streamspace", audience="streamspace-api")
        return await verifier.verify(tokens.access_token)

    def claims(self, tokens: Tokens) -> dict[str, Any]:
        return jwt.decode(tokens.access_token, options={"verify_signature": False})

    async def events(self, of: type[E], count: int = 1) -> list[E]:
        """The first `count` events of a type; waits for them."""
        found: list[E] = []
        async with (
            asyncio.timeout(60),
            aclosing(
                self.gateway.tail(EVENTS.name, [f"evt.core.*.*.{of.KIND}"], start=StartAt.all())
            ) as messages,
        ):
            async for message in messages:
                event = parse_event(message.type, message.payload)
                if isinstance(event, of):
                    found.append(event)
                if len(found) == count:
                    return found
        raise AssertionError("a tail never ends")

    async def sql(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()
