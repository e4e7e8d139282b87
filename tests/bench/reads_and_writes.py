"""The API under a steady load: 1,000 sessions in the table, pages of 50."""

import psutil
from tests.bench.load import Connections, open_loop, percentile
from tests.bench.report import Figure, milliseconds
from tests.bench.starts import TEMPLATE, remove


def cpu_seconds(pids: dict[str, int]) -> float:
    """CPU that all processes of the stack have used so far, PostgreSQL's children included.

    Those that have ended too: what they used must not vanish from the sum.
    """
    total = 0.0
    for pid in pids.values():
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
            if process.pid == pid:
                total += times.children_user + times.children_system
    return total


async def measure(
    connections: Connections, pids: dict[str, int], *, rows: int = 1000, rate: float = 100.0
) -> list[Figure]:
    ids: list[str] = []
    refused = 0

    async def create(_: int) -> None:
        nonlocal refused
        answer = await connections.request("POST", "/sessions", TEMPLATE)
        if answer.status == 202:
            ids.append(answer.json()["session"]["id"])
        else:
            refused += 1

    async def read(_: int) -> None:
        nonlocal refused
        answer = await connections.request("GET", "/sessions?limit=50")
        refused += answer.status != 200 or len(answer.json()["items"]) != 50

    await open_loop(rate / 2, rows, create)
    await open_loop(rate, int(rate), read)  # A warm-up.
    unready, refused = refused, 0
    before = cpu_seconds(pids)
    reads = await open_loop(rate, int(rate * 10), read)
    used = cpu_seconds(pids) - before
    unread, refused = refused, 0
    writes = await open_loop(rate, int(rate * 5), create)
    await remove(connections, ids)
    return [
        Figure(
            f"GET /sessions, {rows - unready} rows, page of 50, {rate:.0f}/s",
            f"{_spread(reads)}, {unread} errors",
            "p95 <= 25 ms",
        ),
        Figure(
            "reads per second and core (all services, NATS, PostgreSQL)",
            f"{len(reads) / used:.0f}",
            ">= 300",
        ),
        Figure(
            f"POST /sessions, {rate:.0f}/s, while the sessions start",
            f"{_spread(writes)}, {refused} errors",
            "p95 <= 60 ms",
        ),
    ]


def _spread(values: list[float]) -> str:
    return (
        f"p50 {milliseconds(percentile(values, 0.5))}, p95 {milliseconds(percentile(values, 0.95))}"
    )
