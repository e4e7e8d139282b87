"""What everything costs while nothing happens."""

import asyncio

import psutil
from tests.bench.reads_and_writes import cpu_seconds
from tests.bench.report import Figure

LAUNCHER = "launcher"
"""The parent of all others; only what it takes itself counts under its name."""


def proportional_bytes(pids: dict[str, int]) -> dict[str, int]:
    """Memory per process; pages that several share are split between them (PSS)."""
    found: dict[str, int] = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        family = [process] if name == LAUNCHER else [process, *process.children(recursive=True)]
        found[name] = sum(process.memory_full_info().pss for process in family)
    return found


async def measure(pids: dict[str, int], launcher: int, seconds: float = 30.0) -> list[Figure]:
    """Everything `make up` runs, from a few seconds after it is ready."""
    tree = {LAUNCHER: launcher}
    await asyncio.sleep(10)
    before = cpu_seconds(tree)
    await asyncio.sleep(seconds)
    share = (cpu_seconds(tree) - before) / seconds
    memory = proportional_bytes(pids | tree)
    parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(memory.items()))
    return [
        Figure("memory, idle", f"{sum(memory.values()) / 1e6:.0f} MB ({parts})", "<= 600 MB"),
        Figure("CPU, idle", f"{share * 100:.1f} % of a core", "<= 3 %"),
    ]
