"""Sessions, commands and history rebuilt from a million events, and compared with the live ones.

The events are those of real lives (`lives.py`), stored by a real nats-server; the live tables
hold what those lives came to. What is measured is the command that an operator runs.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import nats
from nats.aio.msg import Msg
from tests.bench.lives import Crowd
from tests.bench.report import Figure

from streamspace_common.bus import Bus, provision
from streamspace_common.runtime.tracing import trace_id_of
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.postgres import PostgresServer
from streamspace_embedded.ports import free_port

EVENTS = int(os.environ.get("STREAMSPACE_BENCH_EVENTS", "1000000"))
_WINDOW = 4000
"""Messages on their way to the server; more than 10,000 it would not take."""
_HISTORY = ("session_id", "event_id", "type", "at", "trace_id", "payload")


async def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="streamspace-bench-") as folder:
        server = _relaxed(Path(folder) / "nats")
        postgres = PostgresServer(Path(folder) / "postgres")
        server.start()
        postgres.start()
        try:
            database = await postgres.create_database("streamspace_session")
            crowd = Crowd(EVENTS)
            stored = await _tell(server, crowd)
            await _live(database, crowd)
            return await _figures(server, database, stored, crowd.sessions)
        finally:
            postgres.stop()
            server.stop()


def _relaxed(folder: Path) -> NatsServer:
    """A server that does not wait for the disk: a million events are soon told."""
    port = free_port()
    return NatsServer(
        folder,
        config=f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{folder / "store"}" }}\n',
        port=port,
    )


async def _tell(server: NatsServer, crowd: Crowd) -> int:
    """Store every event; returns how many."""
    bus = await Bus.connect(server.url, name="bench")
    await provision(bus)
    await bus.close()
    client = await nats.connect(server.url)
    room = asyncio.Semaphore(_WINDOW)
    inbox = client.new_inbox()
    refused: list[bytes] = []

    async def settled(answer: Msg) -> None:
        room.release()
        if b'"error"' in answer.data:
            refused.append(answer.data)

    await client.subscribe(f"{inbox}.>", cb=settled)
    count = 0
    for count, (subject, headers, payload) in enumerate(crowd.told(), 1):
        await room.acquire()
        await client.publish(subject, payload, reply=f"{inbox}.{count}", headers=headers)
    for _ in range(_WINDOW):
        await room.acquire()
    await client.close()
    if refused:
        raise RuntimeError(f"{len(refused)} events were refused, the first: {refused[0]!r}")
    return count


async def _live(database: str, crowd: Crowd) -> None:
    """Fill the live tables with what the service would have kept."""
    connection = await asyncpg.connect(database)
    try:
        await _copy(connection, "sessions", crowd.session_rows())
        await _copy(connection, "commands", crowd.command_rows())
        await connection.copy_records_to_table(
            "session_history", columns=list(_HISTORY), records=_history(crowd)
        )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _copy(connection: Any, table: str, rows: Iterable[dict[str, Any]]) -> None:
    found = iter(rows)
    first = next(found)

    def records() -> Iterator[tuple[Any, ...]]:
        yield tuple(first.values())
        for row in found:
            yield tuple(row.values())

    await connection.copy_records_to_table(table, columns=list(first), records=records())


def _history(crowd: Crowd) -> Iterator[tuple[Any, ...]]:
    from datetime import datetime

    for _, headers, payload in crowd.told():
        yield (
            headers["ce-subject"],
            headers["ce-id"],
            headers["ce-type"],
            datetime.fromisoformat(headers["ce-time"]),
            trace_id_of(headers["traceparent"]),
            payload.decode(),
        )


async def _figures(server: NatsServer, database: str, stored: int, sessions: int) -> list[Figure]:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamspace_session.rebuild",
        "--into",
        "rebuilt",
        env={
            **os.environ,
            "STREAMSPACE_SESSION_DATABASE_URL": database,
            "STREAMSPACE_SESSION_NATS_URL": server.url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=None,
    )
    said, _ = await process.communicate()
    took = time.monotonic() - began
    last = (said.decode().splitlines() or ["nothing was said"])[-1]
    return [
        Figure(
            f"rebuild of {stored:,} events ({sessions:,} sessions), comparison included",
            f"{took:.1f} s ({stored / took:,.0f}/s)",
            "<= 60 s",
        ),
        Figure("rebuilt beside live", last, "the same"),
    ]
