"""The workload: clients that start, hibernate, wake and stop sessions through the HTTP API.

They behave as impatient people do: they delete what has not started yet, ask again when no
answer comes, and go on with whatever they find. Each remembers what it asked and what it was
told. A creation is repeated with its Idempotency-Key until there is an answer; anything else
that got none is left at that, so that it may or may not have been carried out.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from tests.chaos.records import Answer, Journal, Request
from tests.support.stack import ADMIN_PASSWORD

TEMPLATE = "starter_terminal"
_TIMEOUT = 8.0
_PATHS = {"hibernate_session": "/hibernate", "wake_session": "/wake", "stop_session": ""}
_GONE = {"terminating", "terminated", "failed"}


@dataclass(frozen=True)
class Place:
    """A cluster to ask for; `share` of the sessions, `limit` of those alive at a time."""

    cluster: str
    share: float
    limit: int


@dataclass
class Budget:
    """How many accepted requests are still wanted, and what was counted on the way.

    `due` says how many there should be by now: the work keeps step with the faults.
    """

    left: int
    due: Callable[[], float] = lambda: math.inf
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    internal_errors: list[str] = field(default_factory=list)

    def count(self, request: Request) -> None:
        if request.status == 500:
            # Never right: whatever is away, a service says so in its own words.
            self.internal_errors.append(f"{request.action} {request.session or request.key}")
        match request.answer:
            case Answer.ACCEPTED:
                self.accepted += 1
                self.left -= 1
            case Answer.REFUSED:
                self.refused += 1
            case Answer.UNKNOWN:
                self.unknown += 1


class Api:
    """The HTTP API behind several gateways, for one user."""

    def __init__(self, gateways: Sequence[str], chance: random.Random) -> None:
        self._gateways = gateways
        self._chance = chance
        self._client = httpx2.AsyncClient(
            trust_env=False,
            timeout=_TIMEOUT,
            limits=httpx2.Limits(max_connections=100, max_keepalive_connections=50),
        )
        self._token = ""

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """One request to any gateway.

        Raises:
            httpx2.HTTPError: there was no answer; `ConnectError` where it was surely not sent.
        """
        headers = {**more.pop("headers", {}), "Authorization": f"Bearer {self._token}"}
        gateway = self._chance.choice(self._gateways)
        answer = await self._client.request(
            method, f"{gateway}/api/v1{path}", headers=headers, **more
        )
        if answer.status_code == 401:
            await self.sign_in()
        return answer

    async def sign_in(self) -> None:
        """Sign in; a refusal because of an outage is found out by the next request."""
        body = {"username": "admin", "password": ADMIN_PASSWORD}
        for gateway in self._gateways:
            try:
                answer = await self._client.post(f"{gateway}/api/v1/auth/login", json=body)
            except httpx2.HTTPError:
                continue
            if answer.status_code == 200:
                self._token = answer.json()["accessToken"]
                return

    async def read(self, path: str, **parameters: Any) -> dict[str, Any]:
        """GET, patiently: repeated until it is answered. Raises TimeoutError after a minute."""
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await self.ask("GET", path, params=parameters)
                    if answer.status_code == 200:
                        found: dict[str, Any] = answer.json()
                        return found
                except httpx2.HTTPError:
                    pass
                await asyncio.sleep(0.3)


class Client:
    """One impatient person with a few sessions."""

    def __init__(
        self,
        number: int,
        seed: int | str,
        api: Api,
        journal: Journal,
        places: Sequence[Place],
    ) -> None:
        self._number = number
        self._seed = seed
        self._chance = random.Random(f"client {seed} {number}")
        self._api = api
        self._journal = journal
        self._places = places
        self._sessions: dict[str, Place] = {}
        self._created = 0

    async def work(self, budget: Budget, pace: float, population: dict[str, int]) -> None:
        """Ask until the budget is used up; `pace` is the mean pause in seconds."""
        while budget.left > 0:
            await asyncio.sleep(self._chance.expovariate(1 / pace))
            if budget.accepted > budget.due():
                continue
            if len(self._sessions) < 3 or (len(self._sessions) < 6 and self._chance.random() < 0.2):
                await self._create(budget, population)
            else:
                session = self._chance.choice(sorted(self._sessions))
                await self._go_on(session, budget, population)

    async def _create(self, budget: Budget, population: dict[str, int]) -> None:
        place = self._place(population)
        self._created += 1
        key = f"{self._seed}-{self._number}-{self._created}"
        body = {"template": TEMPLATE, "persistentHome": False, "clusterId": place.cluster}
        population[place.cluster] += 1
        while True:
            request = await self._request(
                "create", "POST", "/sessions", key=key, json=body, headers={"Idempotency-Key": key}
            )
            if request is not None:
                self._note(budget, request)
                if request.answer is not Answer.UNKNOWN:
                    break
            await asyncio.sleep(self._chance.uniform(0.2, 0.8))
        if request.session is not None:
            self._sessions[request.session] = place
        else:
            population[place.cluster] -= 1

    def _place(self, population: dict[str, int]) -> Place:
        open_places = [p for p in self._places if population[p.cluster] < p.limit]
        return self._chance.choices(open_places, [p.share for p in open_places])[0]

    async def _go_on(self, session: str, budget: Budget, population: dict[str, int]) -> None:
        try:
            answer = await self._api.ask("GET", f"/sessions/{session}")
        except httpx2.HTTPError:
            return
        if answer.status_code != 200:
            return
        state = answer.json()["state"]
        if state in _GONE:
            self._forget(session, population)
            return
        action = self._choose(state)
        if action is None:
            return
        method = "DELETE" if action == "stop_session" else "POST"
        request = await self._request(
            action, method, f"/sessions/{session}{_PATHS[action]}", session=session
        )
        if request is None:
            return
        self._note(budget, request)
        if action == "stop_session" and request.answer is Answer.ACCEPTED:
            self._forget(session, population)

    def _choose(self, state: str) -> str | None:
        drawn = self._chance.random()
        match state:
            case "running":
                return (
                    "hibernate_session" if drawn < 0.5 else "stop_session" if drawn < 0.9 else None
                )
            case "hibernated":
                return "wake_session" if drawn < 0.75 else "stop_session"
            case _:
                return "stop_session" if drawn < 0.15 else None

    def _forget(self, session: str, population: dict[str, int]) -> None:
        place = self._sessions.pop(session)
        population[place.cluster] -= 1

    def _note(self, budget: Budget, request: Request) -> None:
        self._journal.write(request)
        budget.count(request)

    async def _request(
        self,
        action: str,
        method: str,
        path: str,
        *,
        session: str | None = None,
        key: str | None = None,
        **more: Any,
    ) -> Request | None:
        """Ask once; None where the request surely never left."""
        try:
            answer = await self._api.ask(method, path, **more)
        except httpx2.ConnectError:
            return None
        except httpx2.HTTPError:
            return Request(time.time(), action, Answer.UNKNOWN, session, None, key)
        status = answer.status_code
        if status == 202:
            body = answer.json()
            told = body["session"]["id"]
            return Request(
                time.time(), action, Answer.ACCEPTED, told, body.get("commandId"), key, status
            )
        refused = 400 <= status < 500
        said = Answer.REFUSED if refused else Answer.UNKNOWN
        if status == 401:
            return None
        return Request(time.time(), action, said, session, None, key, status)
