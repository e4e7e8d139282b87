"""Backup and restore of streams on a real server."""

from datetime import datetime
from pathlib import Path

import pytest

from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.ops import archive
from streamspace_common.bus import Bus, BusError, Streams, ensure_durable, provision
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.streams import agent_durable

NAMES = ("COMMANDS", "EVENTS", "DLQ", "ADVISORIES")


async def fill(bus: Bus, count: int) -> None:
    for number in range(count):
        await bus.publish(
            f"evt.core.session.s{number % 7}.created",
            f'{{"number": {number}, "padding": "{"x" * 200}"}}'.encode(),
            {"Nats-Msg-Id": f"event-{number}", "ce-type": "session.created.v1"},
        )


async def everything(streams: Streams, name: str) -> list[tuple[int, str, bytes, datetime]]:
    found, position = [], 1
    while (message := await streams.first_from(name, ">", position)) is not None:
        found.append((message.sequence, message.subject, message.payload, message.time))
        position = message.sequence + 1
    return found


async def test_what_was_backed_up_comes_back_as_it_was(
    session: Bus, ops: Streams, connect, tmp_path: Path
) -> None:
    await fill(session, 300)
    await ensure_durable(session, agent_durable(ClusterId("lab")))
    # Two commands of one session: the second one takes the first one's place.
    for number in (1, 2):
        await session.publish("cmd.lab.one", b"{}", {"Nats-Msg-Id": f"c-{number}"})
    before = {name: await everything(ops, name) for name in NAMES}
    lag = await ops.consumers("EVENTS")
    path = tmp_path / "backup.tar"
    told: list[str] = []
    written = await archive.write(ops, NAMES, path, told.append)
    assert path.stat().st_mode & 0o777 == 0o600
    assert told == ["COMMANDS: 1 messages", "EVENTS: 300 messages", "DLQ: 0 messages",
                    "ADVISORIES: 0 messages"]  # fmt: skip
    assert [entry.as_data() for entry in archive.check(path)] == [e.as_data() for e in written]

    await session.publish("evt.core.session.late.created", b"{}", {"Nats-Msg-Id": "late"})
    rights = Streams(await connect("restore"))
    await archive.restore(rights, path, replace=True, tell=told.append)
    assert {name: await everything(ops, name) for name in NAMES} == before
    assert await ops.consumers("EVENTS") == lag
    assert "agent-lab" in await ops.consumers("COMMANDS")
    # Sequences go on behind it, and the services find the streams as they want them.
    await provision(session)
    stored = await session.publish("evt.core.session.new.created", b"{}", {"Nats-Msg-Id": "new"})
    assert stored.sequence == 301


async def test_what_exists_is_replaced_only_when_asked_for(
    session: Bus, ops: Streams, connect, tmp_path: Path
) -> None:
    await fill(session, 3)
    path = tmp_path / "backup.tar"
    await archive.write(ops, ("EVENTS",), path, lambda _: None)
    await fill(session, 10)
    rights = Streams(await connect("restore"))
    with pytest.raises(CliError, match="EVENTS") as refused:
        await archive.restore(rights, path, replace=False, tell=lambda _: None)
    assert refused.value.code is ExitCode.CONFLICT
    assert (await ops.state("EVENTS")).messages == 10
    await rights.delete("EVENTS")
    await archive.restore(rights, path, replace=False, tell=lambda _: None)
    assert (await ops.state("EVENTS")).messages == 3


async def test_a_damaged_backup_is_refused_before_anything_is_lost(
    session: Bus, ops: Streams, connect, tmp_path: Path
) -> None:
    await fill(session, 50)
    path = tmp_path / "backup.tar"
    await archive.write(ops, ("EVENTS",), path, lambda _: None)
    whole = path.read_bytes()
    rights = Streams(await connect("restore"))
    changed = bytearray(whole)
    changed[700] ^= 0xFF
    for content in (bytes(changed), whole[:1200], b"", b"no tar at all"):
        path.write_bytes(content)
        with pytest.raises(CliError, match=r"damaged|not a backup"):
            await archive.restore(rights, path, replace=True, tell=lambda _: None)
    assert (await ops.state("EVENTS")).messages == 50


async def test_a_backup_that_fails_leaves_no_half_file(ops: Streams, tmp_path: Path) -> None:
    with pytest.raises(BusError):
        await archive.write(ops, ("DLQ", "NONE"), tmp_path / "b.tar", lambda _: None)
    assert [path.name for path in tmp_path.iterdir() if "b.tar" in path.name] == []
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(CliError, match="exists already"):
        await archive.write(ops, ("DLQ",), tmp_path / "b.tar", lambda _: None)
