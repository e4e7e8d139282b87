"""How fast sessions start: our own overhead, and how many at once, on the null runtime.

The null runtime does nothing but write a line with the time of each effect, so what is
left is ours: HTTP, placement, the bus, the agent, and the way back to the browser.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.following import Followed, following
from tests.bench.load import Connections, open_loop, percentile
from tests.bench.report import Figure, milliseconds

TEMPLATE = {"template": "starter_desktop"}


@dataclass(frozen=True)
class Run:
    """One session: when it was asked for and when a client saw it run, in wall-clock seconds."""

    session: str
    asked: float
    ran: float


class NotStartedError(Exception):
    """What the API, or the session's fate, said instead."""


async def start(connections: Connections, followed: Followed) -> Run:
    """Create a session and wait for `running`.

    Raises:
        NotStartedError: it was refused, or did not run within a minute.
    """
    asked = time.time()
    answer = await connections.request("POST", "/sessions", TEMPLATE)
    if answer.status != 202:
        raise NotStartedError(answer.body.decode(errors="replace"))
    session = answer.json()["session"]["id"]
    try:
        ran = await followed.wait(session, "running")
    except TimeoutError as error:
        raise NotStartedError(f"{session} does not run") from error
    return Run(session, asked, ran)


async def remove(
    connections: Connections, sessions: Iterable[str], followed: Followed | None = None
) -> None:
    """Delete sessions; with `followed`, wait until they are gone."""
    limit = asyncio.Semaphore(16)

    async def one(session: str) -> None:
        async with limit:
            await connections.request("DELETE", f"/sessions/{session}")
            if followed is not None:
                await followed.wait(session, "terminated")

    await asyncio.gather(*(one(session) for session in sessions))


def moments(ledger: Path) -> dict[tuple[str, str], float]:
    """When each effect of each session was written to the null runtime's ledger."""
    found: dict[tuple[str, str], float] = {}
    for line in ledger.read_text().splitlines():
        entry = json.loads(line)
        found.setdefault((entry["session"], entry["effect"]), entry["time"])
    return found


async def warm_up(connections: Connections, count: int = 100) -> None:
    """Connections, prepared statements and caches are there before anything is measured."""
    async with following(connections) as followed:
        for _ in range(count // 10):
            runs = await asyncio.gather(*(start(connections, followed) for _ in range(10)))
            await remove(connections, [run.session for run in runs], followed)


async def overhead(connections: Connections, ledger: Path, count: int = 100) -> list[Figure]:
    """Sessions one after another."""
    runs = []
    async with following(connections) as followed:
        for _ in range(count):
            runs.append(await start(connections, followed))
            await remove(connections, [runs[-1].session], followed)
    effects = moments(ledger)
    there = [effects[run.session, "fenced"] - run.asked for run in runs]
    back = [run.ran - effects[run.session, "started"] for run in runs]
    bar = "p50 <= 15 ms, p99 <= 60 ms"
    return [
        Figure("POST to runtime called", _spread(there), bar),
        Figure("runtime ready to SSE `running`", _spread(back), bar),
    ]


def _spread(values: list[float]) -> str:
    return (
        f"p50 {milliseconds(percentile(values, 0.5))}, p99 {milliseconds(percentile(values, 0.99))}"
    )


async def sustained(
    connections: Connections, rate: float = 165.0, seconds: float = 10.0
) -> list[Figure]:
    """Sessions at a fixed rate, whether or not earlier ones run yet."""
    ids: list[str] = []
    errors: list[str] = []

    async with following(connections) as followed:
        began = time.perf_counter()

        async def send(_: int) -> None:
            try:
                ids.append((await start(connections, followed)).session)
            except NotStartedError as error:
                errors.append(str(error))

        took = await open_loop(rate, int(rate * seconds), send)
        achieved = len(ids) / (time.perf_counter() - began)
        await remove(connections, ids, followed)
    return [
        Figure(
            f"sustained starts, asked for {rate:.0f}/s over {seconds:.0f} s",
            f"{achieved:.0f}/s, p95 {milliseconds(percentile(took, 0.95))}, {len(errors)} errors",
            ">= 150/s, p95 <= 500 ms",
        )
    ]


async def burst(connections: Connections, count: int = 300, rounds: int = 3) -> list[Figure]:
    """All at one moment; the median of a few rounds, by their p99."""
    outcomes = [await _burst(connections, count) for _ in range(rounds)]
    took, errors = sorted(outcomes, key=lambda one: percentile(one[0], 0.99))[rounds // 2]
    return [
        Figure(
            f"burst of {count}, POST to `running`, median of {rounds}",
            f"{_spread(took)}, {sum(outcome[1] for outcome in outcomes)} errors",
            "p50 <= 1 s, p99 <= 2 s, no error",
        )
    ]


async def _burst(connections: Connections, count: int) -> tuple[list[float], int]:
    async with following(connections) as followed:
        gate = time.time()
        outcomes = await asyncio.gather(
            *(start(connections, followed) for _ in range(count)), return_exceptions=True
        )
        runs = [outcome for outcome in outcomes if isinstance(outcome, Run)]
        await remove(connections, [run.session for run in runs], followed)
    return [run.ran - gate for run in runs], count - len(runs)


async def cold(connections: Connections, count: int = 20) -> list[Figure]:
    """Real desktops on the process runtime, one after another."""
    took = []
    async with following(connections) as followed:
        for number in range(count + 2):
            run = await start(connections, followed)
            await remove(connections, [run.session], followed)
            if number >= 2:  # The first ones find the disk's cache empty.
                took.append(run.ran - run.asked)
    return [
        Figure(
            "process runtime, POST to `running`",
            f"p50 {milliseconds(percentile(took, 0.5))}, p95 {milliseconds(percentile(took, 0.95))}",
            "p95 <= 350 ms cold",
        )
    ]
