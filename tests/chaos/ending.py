"""How a round ends: everything healed, everybody given time, and then what is true is read."""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker import Violation, check
from tests.chaos.clients import Api
from tests.chaos.fleet import Fleet
from tests.chaos.records import Command, Journal, Run, Session, read_effects

PATIENCE = 30.0
_LONGER = 30.0
"""Seconds beyond the patience that are waited, to tell late from never."""
_WORKERS = 8


@dataclass
class Ending:
    """What is known so far of the sessions of a run; kept from round to round."""

    settled: dict[str, float] = field(default_factory=dict)
    """Session -> seconds after the last fault, for those that needed any."""
    commands: dict[str, tuple[Command, ...]] = field(default_factory=dict)
    """Of sessions that have ended: these change no more."""
    slowest: float = 0.0

    async def settle(self, api: Api) -> None:
        """Wait until every session is as it ought to be, or has had more than enough time."""
        began = time.monotonic()
        open_before: set[str] = set()
        self.settled = {}
        while (elapsed := time.monotonic() - began) < PATIENCE + _LONGER:
            waiting = {
                each["id"]
                for each in await _pages(api, includeFinal=False)
                if each["state"] != each["desired"]
            }
            for session in open_before - waiting:
                self.settled[session] = elapsed
                self.slowest = max(self.slowest, elapsed)
            open_before = waiting
            if not waiting:
                return
            await asyncio.sleep(0.3)
        self.never = open_before

    never: set[str] = field(default_factory=set)

    async def judge(self, fleet: Fleet, api: Api, journal: Journal) -> tuple[Run, list[Violation]]:
        """Read everything and check it; what may still be on its way is given time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            run = await self._read(fleet, api, journal)
            found = check(run)
            if not found or self.never or time.monotonic() > deadline:
                return run, found
            await asyncio.sleep(1.0)

    async def _read(self, fleet: Fleet, api: Api, journal: Journal) -> Run:
        shown = await _pages(api, includeFinal=True)
        await self._read_commands(api, shown)
        return Run(
            requests=tuple(journal.requests),
            sessions=tuple(self._session(each) for each in shown),
            effects={
                cluster.name: read_effects(fleet.effects_file(cluster.name))
                for cluster in fleet.shape.clusters
            },
            alive={
                cluster.name: alive(fleet, cluster.name, cluster.runtime)
                for cluster in fleet.shape.clusters
            },
            patience=PATIENCE,
        )

    async def _read_commands(self, api: Api, shown: Iterable[dict[str, Any]]) -> None:
        wanted = [each for each in shown if each["id"] not in self.commands]
        queue = iter(wanted)
        self._fresh: dict[str, tuple[Command, ...]] = {}

        async def worker() -> None:
            for each in queue:
                body = await api.read(f"/sessions/{each['id']}/commands")
                commands = tuple(_command(item) for item in body["items"])
                self._fresh[each["id"]] = commands
                if each["state"] == "terminated":
                    self.commands[each["id"]] = commands

        await asyncio.gather(*(worker() for _ in range(_WORKERS)))

    def _session(self, shown: dict[str, Any]) -> Session:
        session = shown["id"]
        return Session(
            id=session,
            state=shown["state"],
            desired=shown["desired"],
            generation=shown["generation"],
            cluster=shown["clusterId"],
            commands=self.commands.get(session) or self._fresh[session],
            settled=None if session in self.never else self.settled.get(session, 0.0),
            reason=shown.get("reason"),
            message=shown.get("message"),
        )


def _command(shown: dict[str, Any]) -> Command:
    return Command(
        id=shown["id"],
        generation=shown["generation"],
        action=shown["action"],
        state=shown["state"],
        actor=shown["actor"]["id"],
    )


async def _pages(api: Api, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {key: str(value).lower() for key, value in parameters.items()}
        if cursor is not None:
            query["cursor"] = cursor
        page = await api.read("/sessions", limit=200, **query)
        found += page["items"]
        cursor = page.get("nextCursor")
        if cursor is None:
            return found


def alive(fleet: Fleet, cluster: str, runtime: str) -> frozenset[str]:
    """Sessions of which something really runs, by the platform's own account."""
    if runtime == "process":
        return frozenset(fleet.desktops().values())
    running: set[str] = set()
    ledger = fleet.null_ledger(cluster)
    if not ledger.exists():
        return frozenset()
    with ledger.open() as lines:
        for line in map(json.loads, lines):
            if line["effect"] in {"started", "confirmed"}:
                running.add(line["session"])
            elif line["effect"] in {"hibernated", "removed", "died"}:
                running.discard(line["session"])
    return frozenset(running)
