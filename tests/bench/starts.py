"""How fast sessions start: our own overhead, and how many at once, on the null runtime.

The null runtime does nothing but write a line with the time of each effect, so what is
left is ours: HTTP, placement, the bus, the agent, and the way back to the browser.
"""

import asyncio
import json
import time
from pathlib import Path

from tests.bench.following import Followed, following
from tests.bench.load import Connections, open_loop, percentile
from tests.bench.report import Figure, milliseconds

TEMPLATE = {"template": "starter_desktop"}


async def start(connections: Connections, followed: Followed) -> tuple[str, float, float]:
    """Create a session and wait for `running`; its id, when it was asked, when it ran."""
    asked = time.time()
    answer = await connections.request("POST", "/sessions", TEMPLATE)
    assert answer.status == 202, answer.body
    session = answer.json()["session"]["id"]
    return session, asked, await followed.wait(session, "running")


async def remove(connections: Connections, sessions: list[str]) -> None:
    limit = asyncio.Semaphore(16)

    async def one(session: str) -> None:
        async with limit:
            await connections.request("DELETE", f"/sessions/{session}")

    await asyncio.gather(*(one(session) for session in sessions))


def moments(ledger: Path) -> dict[tuple[str, str], float]:
    """When each effect of each session was written to the null runtime's ledger."""
    found: dict[tuple[str, str], float] = {}
    for line in ledger.read_text().splitlines():
        entry = json.loads(line)
        found.setdefault((entry["session"], entry["effect"]), entry["time"])
    return found


async def overhead(connections: Connections, ledger: Path, count: int = 100) -> list[Figure]:
    """Sessions one after another."""
    runs = []
    async with following(connections) as followed:
        for _ in range(count):
            runs.append(await start(connections, followed))
            await remove(connections, [runs[-1][0]])
    effects = moments(ledger)
    there = [effects[session, "fenced"] - asked for session, asked, _ in runs]
    back = [ran - effects[session, "started"] for session, _, ran in runs]
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
    connections: Connections, rate: float = 150.0, seconds: float = 10.0
) -> list[Figure]:
    """Sessions at a fixed rate, whether or not earlier ones run yet."""
    ids: list[str] = []
    failures = 0

    async with following(connections) as followed:
        began = time.perf_counter()

        async def send(_: int) -> None:
            nonlocal failures
            answer = await connections.request("POST", "/sessions", TEMPLATE)
            if answer.status != 202:
                failures += 1
                return
            session = answer.json()["session"]["id"]
            ids.append(session)
            await followed.wait(session, "running")

        took = await open_loop(rate, int(rate * seconds), send)
        achieved = len(ids) / (time.perf_counter() - began)
    await remove(connections, ids)
    return [
        Figure(
            f"sustained starts, asked for {rate:.0f}/s over {seconds:.0f} s",
            f"{achieved:.0f}/s, p95 {milliseconds(percentile(took, 0.95))}, {failures} errors",
            ">= 150/s, p95 <= 500 ms",
        )
    ]


async def burst(connections: Connections, count: int = 300) -> list[Figure]:
    """All at one moment."""
    async with following(connections) as followed:
        gate = time.time()
        runs = await asyncio.gather(*(start(connections, followed) for _ in range(count)))
    took = [ran - gate for _, _, ran in runs]
    await remove(connections, [session for session, _, _ in runs])
    return [
        Figure(
            f"burst of {count}, POST to `running`",
            _spread(took),
            "p50 <= 1 s, p99 <= 2 s, no error (JupyterHub 6.1: p50 6.7 s)",
        )
    ]


async def cold(connections: Connections, count: int = 20) -> list[Figure]:
    """Real desktops on the process runtime, one after another."""
    took = []
    async with following(connections) as followed:
        for _ in range(count):
            session, asked, ran = await start(connections, followed)
            took.append(ran - asked)
            await remove(connections, [session])
            await followed.wait(session, "terminated")
    return [
        Figure(
            "process runtime, POST to `running`",
            f"p50 {milliseconds(percentile(took, 0.5))}, p95 {milliseconds(percentile(took, 0.95))}",
            "p95 <= 350 ms cold",
        )
    ]
