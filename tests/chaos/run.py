"""One run: a fleet, and rounds of work under fire, each followed by rest and a judgement."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checker import Violation
from tests.chaos.clients import Api, Budget, Client, Place
from tests.chaos.ending import Ending
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Amounts, Fault, Kind, faults
from tests.chaos.records import Journal, Run

_PROGRESS_EVERY = 10.0


@dataclass(frozen=True)
class Round:
    """What one round asks for; `duration` in seconds is how long faults go on."""

    seed: str
    commands: int
    amounts: Amounts
    duration: float


@dataclass
class Tally:
    """What a run came to; the figures of the reference page."""

    rounds: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    sessions: int = 0
    effects: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    incidents: int = 0
    internal_errors: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    violations: Counter[str] = field(default_factory=Counter)
    rebuilt: str = ""
    """What building the projection anew from the events came to."""


class Trial:
    """Carries rounds out on a running fleet."""

    def __init__(
        self, fleet: Fleet, places: Sequence[Place], clients: int, tell: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._places = places
        self._tell = tell
        self._journal = Journal(fleet.folder / "requests.jsonl")
        self._api = Api(fleet.gateways, random.Random("gateways"))
        self._count = clients
        self._clients: list[Client] = []
        self._population = {place.cluster: 0 for place in places}
        self._ending = Ending()
        self._busy: dict[str, asyncio.Lock] = {}
        self.tally = Tally()

    async def close(self) -> None:
        await self._api.close()

    async def round(self, wanted: Round) -> list[Violation]:
        """Work under fire, heal, wait, judge; what is wrong."""
        began = time.monotonic()
        plan = faults(wanted.seed, self._fleet.targets(), wanted.amounts, wanted.duration)
        self._write_plan(wanted, plan)
        await self._api.sign_in()
        start = time.monotonic()
        speed = wanted.commands / wanted.duration
        budget = Budget(wanted.commands, due=lambda: (time.monotonic() - start) * speed)
        await self._under_fire(wanted, plan, budget)
        await self._fleet.ready()
        await self._api.sign_in()
        self._tell("  healed; waiting for everybody to agree")
        await self._ending.settle(self._api)
        run, found = await self._ending.judge(self._fleet, self._api, self._journal)
        self._count_up(run, plan, budget, found)
        self.tally.seconds += time.monotonic() - began
        return found

    async def _under_fire(self, wanted: Round, plan: Sequence[Fault], budget: Budget) -> None:
        if not self._clients:
            self._clients = [
                Client(number, wanted.seed, self._api, self._journal, self._places)
                for number in range(self._count)
            ]
        # Most of the time goes into waiting for answers.
        pace = wanted.duration * self._count / wanted.commands * 0.3
        work = [
            asyncio.create_task(client.work(budget, pace, self._population))
            for client in self._clients
        ]
        fire = asyncio.create_task(self._fire(plan, wanted, budget))
        watch = asyncio.create_task(self._show_progress(wanted, budget))
        try:
            await asyncio.gather(fire, *work)
        finally:
            watch.cancel()
            for task in (fire, *work):
                task.cancel()
            await asyncio.gather(fire, watch, *work, return_exceptions=True)

    # Faults

    async def _fire(self, plan: Sequence[Fault], wanted: Round, budget: Budget) -> None:
        """Faults at their times, but not ahead of the work: the last of both end together.

        Where nothing is accepted any more, faults go on at half their speed.
        """
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                share = fault.at / wanted.duration * wanted.commands
                while True:
                    elapsed = time.monotonic() - began
                    worked = budget.accepted >= share or elapsed >= 2 * fault.at
                    if elapsed >= fault.at and worked:
                        break
                    await asyncio.sleep(0.05)
                group.create_task(self._inflict(fault), name=str(fault))

    async def _inflict(self, fault: Fault) -> None:
        # One that came late must not meet the next one of the same target.
        async with self._busy.setdefault(fault.target, asyncio.Lock()):
            self.tally.faults[fault.kind] += 1
            await self._carry_out(fault)

    async def _carry_out(self, fault: Fault) -> None:
        keeper = self._fleet.keeper
        match fault.kind:
            case Kind.KILL:
                await keeper.kill(fault.target, fault.seconds)
            case Kind.PAUSE:
                await keeper.pause(fault.target, fault.seconds)
            case Kind.RESTART:
                await keeper.restart(fault.target, fault.seconds)
            case Kind.FILL:
                await self._fill(fault)
            case Kind.CUT | Kind.HOLD | Kind.DELAY | Kind.SILENCE:
                await self._disturb(fault)

    async def _fill(self, fault: Fault) -> None:
        disk = self._fleet.disks[fault.target]
        end = time.monotonic() + fault.seconds
        try:
            # What is freed meanwhile is taken again at once.
            while time.monotonic() < end:
                await asyncio.to_thread(disk.fill)
                await asyncio.sleep(0.05)
        finally:
            disk.make_room()

    async def _disturb(self, fault: Fault) -> None:
        link = self._fleet.links[fault.target]
        match fault.kind:
            case Kind.CUT:
                link.cut()
            case Kind.HOLD:
                link.hold()
            case Kind.SILENCE:
                link.silence()
            case _:
                link.delay = fault.amount
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            link.mend()

    # Telling

    async def _show_progress(self, wanted: Round, budget: Budget) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_EVERY)
            kills = self.tally.faults[Kind.KILL]
            self._tell(
                f"  {time.monotonic() - began:4.0f} s: {budget.accepted} of {wanted.commands} "
                f"requests accepted, {budget.unknown} without an answer, "
                f"{sum(self.tally.faults.values())} faults so far, {kills} of them kills"
            )

    def _write_plan(self, wanted: Round, plan: Sequence[Fault]) -> None:
        path = self._fleet.folder / f"plan-{wanted.seed}.txt"
        path.write_text("\n".join(map(str, plan)) + "\n")

    def _count_up(
        self, run: Run, plan: Sequence[Fault], budget: Budget, found: Sequence[Violation]
    ) -> None:
        tally = self.tally
        tally.rounds += 1
        tally.accepted += budget.accepted
        tally.refused += budget.refused
        tally.unknown += budget.unknown
        tally.internal_errors += len(budget.internal_errors)
        tally.sessions = len(run.sessions)
        tally.effects = sum(
            1 for lines in run.effects.values() for line in lines if line.step in {"done", "found"}
        )
        tally.incidents = len(self._fleet.keeper.incidents)
        tally.slowest = self._ending.slowest
        tally.violations.update(violation.kind for violation in found)
        told = {name: getattr(tally, name) for name in tally.__dataclass_fields__}
        result = {"tally": told, "violations": [str(violation) for violation in found]}
        (self._fleet.folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def keep_note(folder: Path) -> str:
    """Where to look when something is wrong."""
    return (
        f"  all of it is kept in {folder}: plan-*.txt (faults), requests.jsonl (what was asked), "
        "effects-*.jsonl (what was done), logs/"
    )
