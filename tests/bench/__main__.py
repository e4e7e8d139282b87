"""`make bench`: prints figures beside their bars; `--record` writes the reference page.

Each section starts its own stack on loopback and ends it. Nothing here is asserted:
the machine decides what a figure is worth.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from tests.bench import (
    footprint,
    jupyterhub,
    on_kubernetes,
    reads_and_writes,
    rebuild,
    relay,
    starts,
)
from tests.bench.load import Connections
from tests.bench.report import Figure, machine, save, table
from tests.support.stack import (
    ADMIN_PASSWORD,
    REPOSITORY,
    Stack,
    end,
    launch,
    sign_in,
    wait_until_ready,
)

RESULTS = REPOSITORY / "test-results" / "bench"
PAGE = REPOSITORY / "docs" / "reference" / "benchmarks.md"
NOTES = "## Notes"
UNLIMITED = {
    "STREAMSPACE_SESSION_QUOTA_SESSIONS": "100000",
    "STREAMSPACE_SESSION_QUOTA_CPU": "1000000",
    "STREAMSPACE_SESSION_QUOTA_MEMORY": "1000Ti",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "100000",
    "STREAMSPACE_AGENT_CPU": "1000000",
    "STREAMSPACE_AGENT_MEMORY": "1000Ti",
    "STREAMSPACE_LOG_LEVEL": "WARNING",
}
NULL = {**UNLIMITED, "STREAMSPACE_AGENT_RUNTIME": "null"}


@asynccontextmanager
async def running(settings: dict[str, str]) -> AsyncIterator[tuple[Stack, Connections]]:
    with tempfile.TemporaryDirectory(prefix="streamspace-bench-") as folder:
        stack = launch(Path(folder) / "data", settings)
        try:
            await wait_until_ready(stack)
            async with httpx2.AsyncClient(base_url=stack.url, trust_env=False) as client:
                admin = await sign_in(client, "admin", ADMIN_PASSWORD)
            connections = Connections(stack.url, admin.token)
            yield stack, connections
            await connections.close()
        finally:
            end(stack)


def ledger(stack: Stack) -> Path:
    return next(stack.data.rglob("ledger*.jsonl"))


async def bench_idle() -> list[Figure]:
    async with running({}) as (stack, _):
        return await footprint.measure(stack.state()["processes"], stack.process.pid)


async def bench_starts() -> list[Figure]:
    async with running(NULL) as (stack, connections):
        await starts.warm_up(connections)
        figures = [
            *await starts.overhead(connections, ledger(stack)),
            *await starts.sustained(connections),
            *await starts.burst(connections),
        ]
    return [*figures, *await jupyterhub.measure()]


async def bench_api() -> list[Figure]:
    async with running(NULL) as (stack, connections):
        return await reads_and_writes.measure(connections, stack.state()["processes"])


async def bench_desktops() -> list[Figure]:
    async with running(UNLIMITED) as (_, connections):
        return await starts.cold(connections)


SECTIONS: dict[str, tuple[str, Callable[[], Coroutine[Any, Any, list[Figure]]]]] = {
    "starts": ("Session starts, null runtime", bench_starts),
    "desktops": ("Session starts, real desktops", bench_desktops),
    "api": ("API", bench_api),
    "relay": ("Relay, beside websockify and HAProxy", relay.measure),
    "rebuild": ("Rebuild from events", rebuild.measure),
    "idle": ("Idle footprint", bench_idle),
    "kubernetes": ("Sessions on Kubernetes", on_kubernetes.measure),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--record", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    tables = []
    load_before = os.getloadavg()[0]
    for name in arguments.sections or SECTIONS:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; choose from {', '.join(SECTIONS)}")
        title, measure = SECTIONS[name]
        figures = asyncio.run(measure())
        save(RESULTS, name, figures)
        tables.append(table(title, figures))
        print(tables[-1], flush=True)
    if arguments.record:
        PAGE.write_text(page(tables, load_before) + notes())


def page(tables: list[str], load_before: float) -> str:
    return (
        "# Benchmarks\n\nWritten by `make bench ARGS=--record`, all but the notes at the end. The "
        "load generator and the peers share the machine with what is measured; each section starts "
        f"a stack of its own.\n\nMachine: {machine()}. Load average before the run: "
        f"{load_before:.1f}.\n\n" + "\n".join(tables)
    )


def notes() -> str:
    """What people wrote below the figures, which a new run keeps."""
    _, mark, text = (PAGE.read_text() if PAGE.exists() else "").partition(NOTES)
    return f"\n{NOTES}{text if mark else chr(10)}"


if __name__ == "__main__":
    main()
