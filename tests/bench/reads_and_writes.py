"""The API under a steady load: 1,000 sessions in the table, pages of 50."""

import time

import psutil
from tests.bench.load import Connections, open_loop, percentile
from tests.bench.report import Figure, milliseconds
from tests.bench.starts import TEMPLATE, remove


def cpu_seconds(pids: dict[str, int]) -> float:
    """CPU that all processes of the stack have used so far, PostgreSQL's children included."""
    total = 0.0
    for pid in pids.values():
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


async def measure(
    connections: Connections, pids: dict[str, int], *, rows: int = 1000, rate: float = 100.0
) -> list[Figure]:
    ids: list[str] = []

    async def create(_: int) -> None:
        answer = await connections.request("POST", "/sessions", TEMPLATE)
        assert answer.status == 202, answer.body
        ids.append(answer.json()["session"]["id"])

    await open_loop(rate, rows, create)

    async def read(_: int) -> None:
        answer = await connections.request("GET", "/sessions?limit=50")
        assert answer.status == 200
        assert len(answer.json()["items"]) == 50

    before, began = cpu_seconds(pids), time.perf_counter()
    reads = await open_loop(rate, int(rate * 10), read)
    used = cpu_seconds(pids) - before
    per_core = len(reads) / used
    writes = await open_loop(rate, int(rate * 5), create)
    del began
    await remove(connections, ids)
    return [
        Figure(
            f"GET /sessions, {rows} rows, page of 50, {rate:.0f}/s",
            f"p50 {milliseconds(percentile(reads, 0.5))}, p95 {milliseconds(percentile(reads, 0.95))}",
            "p95 <= 25 ms",
        ),
        Figure(
            "reads per second and core (all services, NATS, PostgreSQL)",
            f"{per_core:.0f}",
            ">= 300",
        ),
        Figure(
            f"POST /sessions, {rate:.0f}/s",
            f"p50 {milliseconds(percentile(writes, 0.5))}, p95 {milliseconds(percentile(writes, 0.95))}",
            "p95 <= 60 ms",
        ),
    ]
