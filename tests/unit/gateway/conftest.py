"""The gateway's application over fakes of its three ports; no socket is opened."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import Method
from streamspace_gateway.app import create_app
from streamspace_gateway.deps import State
from streamspace_gateway.feed_event import FeedEvent
from streamspace_gateway.rates import RateLimiter
from streamspace_gateway.settings import GatewaySettings

USERS = {
    role: Principal(user_id=UserId(f"usr-{number:032x}"), username=str(role), role=role)
    for number, role in enumerate(Role, start=1)
}


@dataclass
class ScriptedServices:
    """Answers each method as told, and remembers what it was asked."""

    answers: dict[str, Contract | Exception] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def call(self, method: Method[Any, Any], request: Any, *, timeout: float = 5.0) -> Any:
        name = f"{method.service}.{method.name}"
        self.asked.append((name, request))
        answer = self.answers.get(name)
        if answer is None:
            raise ProblemError.of(Code.SERVICE_UNAVAILABLE, f"{name} is not there.", retry_after=2)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def call_unread(
        self, method: Method[Any, Any], request: Any, *, timeout: float = 5.0
    ) -> bytes:
        answer: Contract = await self.call(method, request, timeout=timeout)
        return answer.to_json()


@dataclass
class ScriptedFeed:
    """Plays stored events and then ends."""

    stored: list[FeedEvent] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.stored[-1].sequence if self.stored else 0

    async def follow(
        self, wanted: Callable[[FeedEvent], bool], *, after: int
    ) -> AsyncGenerator[FeedEvent | None]:
        for event in self.stored:
            if event.sequence > after and wanted(event):
                yield event


class NamesAsTokens:
    """The token `admin` is the administrator's, and so on."""

    async def verify(self, token: str) -> Principal:
        try:
            return USERS[Role(token)]
        except ValueError as error:
            raise ProblemError.of(Code.UNAUTHENTICATED, "The token is not valid.") from error


@dataclass
class Gateway:
    client: httpx2.AsyncClient
    services: ScriptedServices
    feed: ScriptedFeed

    def as_(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {role}"}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    services, feed = ScriptedServices(), ScriptedFeed()
    app = create_app(
        State(
            services=services,
            feed=feed,
            verifier=NamesAsTokens(),
            rates=RateLimiter({"create": "3/minute", "connect": "3/minute", "catalog": "3/minute"}),
            settings=GatewaySettings(max_body_bytes=4096),
        )
    )
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Gateway(client, services, feed)
