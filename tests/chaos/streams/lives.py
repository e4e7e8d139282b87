"""A workload of sessions' lives, and the proof that each was lived once and to its end.

Every worker takes one session after another through start, hibernation, wake and deletion,
as a patient client does: what is refused for now is asked again with the same key. Then the
null runtime's ledger, which the agents wrote, is compared with what was accepted.
"""

import asyncio
import contextlib
import functools
import itertools
import json
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from tests.support.stack import Api

_STEPS = (
    ("hibernate", "hibernated"),
    ("wake", "running"),
)
_EFFECTS = {"started", "hibernated", "removed"}
"""What one life leaves in the ledger: started, hibernated, started, removed."""
_PASSING = {429, 502, 503}


@dataclass
class Workload:
    """What was asked for, and how it went."""

    api: Api
    accepted: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    """Answers that said "not now", by status; 0 for none at all."""
    slowest: float = 0.0
    """Seconds from acceptance to the wanted state, at most."""
    commands: int = 0
    _keys: "itertools.count[int]" = field(default_factory=itertools.count)
    _run: str = field(default_factory=lambda: secrets.token_hex(4))

    async def live(self) -> None:
        """One session's life."""
        key = {"Idempotency-Key": f"{self._run}-{next(self._keys)}"}
        answer = await self._ask(
            lambda: self.api.post("/sessions", json={"template": "starter_desktop"}, headers=key)
        )
        session = str(answer.json()["session"]["id"])
        self.accepted.append(session)
        await self._until(session, "running")
        for action, state in _STEPS:
            await self._ask(functools.partial(self.api.post, f"/sessions/{session}/{action}"))
            await self._until(session, state)
        await self._ask(lambda: self.api.delete(session))
        await self._until(session, "terminated")
        self.finished.append(session)

    async def _ask(self, ask: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
        """Ask until it is accepted. An answer may be lost and the request carried out: then
        the next one finds the session in the state that was wanted, or on its way there."""
        unsure = False
        async with asyncio.timeout(120):
            while True:
                try:
                    answer = await ask()
                except httpx2.HTTPError:
                    self.refused[0] += 1
                    unsure = True
                else:
                    if unsure and answer.status_code == 409:
                        return answer
                    if answer.status_code == 202:
                        self.commands += 1
                        return answer
                    assert answer.status_code in _PASSING, answer.text
                    self.refused[answer.status_code] += 1
                    unsure = True
                await asyncio.sleep(0.2)

    async def _until(self, session: str, state: str) -> None:
        began = time.monotonic()
        await self.api.wait_for(session, state, seconds=120)
        self.slowest = max(self.slowest, time.monotonic() - began)

    async def more(self, lives: int) -> None:
        """Return when so many more have come to their end."""
        wanted = len(self.finished) + lives
        async with asyncio.timeout(120):
            while len(self.finished) < wanted:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def working(api: Api, *, workers: int = 8) -> AsyncIterator[Workload]:
    """Keep so many lives going; at the end all that were begun are finished."""
    workload = Workload(api)
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await workload.live()

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        yield workload
        stop.set()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Verdict:
    """Sessions whose ledger is not what was asked for."""

    lost: list[str]
    doubled: list[str]
    unknown: list[str]


def compare(ledger: Path, workload: Workload) -> Verdict:
    """Each accepted life has to have been lived once: no effect missing, none twice."""
    effects: dict[str, list[str]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        entry = json.loads(line)
        if entry["effect"] in _EFFECTS:
            effects[entry["session"]].append(entry["effect"])
    whole = ["started", "hibernated", "started", "removed"]
    lost, doubled = [], []
    for session in workload.accepted:
        found = Counter(effects.get(session, []))
        if found - Counter(whole):
            doubled.append(session)
        if Counter(whole) - found:
            lost.append(session)
    unknown = [session for session in effects if session not in set(workload.accepted)]
    return Verdict(lost, doubled, unknown)
