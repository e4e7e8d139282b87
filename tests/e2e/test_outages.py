"""Every accepted request ends in the right state, whatever is killed meanwhile.

The launcher restarts what dies; `kill -9` gives no process a last word.
"""

import asyncio
import contextlib

import pytest
import websockets
from tests.support.stack import patiently

from streamspace_common.testing.waiting import eventually

SERVICES = [
    "nats",
    "postgres",
    "auth",
    "session",
    "catalog-sync",
    "gateway",
    "vnc-proxy",
    "agent-local",
]


async def until_alive_again(stack, service, old_pid):
    def restarted():
        with contextlib.suppress(OSError, ValueError, KeyError):
            return stack.pid(service) != old_pid and stack.state()["ready"]
        return False

    await eventually(restarted, timeout=40, message=f"{service} was not restarted")


@pytest.mark.parametrize("service", SERVICES)
async def test_traffic_survives_the_sudden_death_of(stack, user, service):
    async def one_life(number):
        key = {"Idempotency-Key": f"{service}-{user.username}-{number}"}
        answer = await patiently(
            lambda: user.post("/sessions", json={"template": "starter_terminal"}, headers=key),
            accepted=(202,),
        )
        session_id = answer.json()["session"]["id"]
        await user.wait_for(session_id, "running", seconds=90)
        await patiently(lambda: user.delete(session_id))
        await user.wait_for(session_id, "terminated", seconds=90)
        return session_id

    lives = [asyncio.create_task(one_life(number)) for number in range(4)]
    await asyncio.sleep(0)
    old_pid = stack.kill(service)
    try:
        ids = await asyncio.gather(*lives)
    finally:
        for life in lives:
            life.cancel()
    await until_alive_again(stack, service, old_pid)
    assert len(set(ids)) == 4
    for session_id in ids:
        await eventually(lambda id_=session_id: stack.processes_of(id_) == [], timeout=10)


async def test_a_session_deleted_while_its_agent_is_dead_is_gone_soon_after(stack, user):
    session = await user.launch("starter_terminal")
    await user.wait_for(session["id"], "running")
    old_pid = stack.pid("agent-local")
    with stack.held("agent-local"):
        answer = await user.delete(session["id"])
        assert answer.status_code == 202
        assert stack.processes_of(session["id"])
    await until_alive_again(stack, "agent-local", old_pid)
    await user.wait_for(session["id"], "terminated", seconds=15)
    await eventually(lambda: stack.processes_of(session["id"]) == [], timeout=5)
    states = [event.data["toState"] for event in await history(user, session["id"], "state")]
    assert states.count("terminated") == 1


async def history(user, session_id, *names, until="terminated"):
    """Every event of the session that is stored so far, up to the state `until`."""
    found = []
    async with user.events(f"/sessions/{session_id}/events", last_event_id=0) as events:
        async with asyncio.timeout(20):
            async for event in events:
                if event.name in names:
                    found.append(event)
                if event.name == "state" and event.data["toState"] == until:
                    break
    return found


async def test_a_session_whose_agent_is_away_is_unknown_until_it_returns(stack, user):
    session = await user.launch("starter_terminal")
    await user.wait_for(session["id"], "running")
    # The terminal may start its shell a little later: those that are here now must stay.
    processes = set(stack.processes_of(session["id"]))
    old_pid = stack.pid("agent-local")
    with stack.held("agent-local"):
        away = await user.wait_for(session["id"], "unknown", seconds=40)
        assert away["message"]
        assert processes <= set(stack.processes_of(session["id"]))
    await until_alive_again(stack, "agent-local", old_pid)
    await user.wait_for(session["id"], "running")
    assert processes <= set(stack.processes_of(session["id"]))


async def test_an_event_stream_resumes_without_a_gap_after_a_gateway_died(stack, user):
    session = await user.launch("starter_terminal")
    seen = []
    async with user.events(f"/sessions/{session['id']}/events", last_event_id=0) as events:
        async for event in events:
            seen.append(event)
            if event.name == "phase":
                break
    old_pid = stack.kill("gateway")
    await until_alive_again(stack, "gateway", old_pid)
    await user.wait_for(session["id"], "running")
    await patiently(lambda: user.delete(session["id"]))
    path = f"/sessions/{session['id']}/events"
    async with user.events(path, last_event_id=seen[-1].id) as events:
        async with asyncio.timeout(30):
            async for event in events:
                seen.append(event)
                if event.name == "state" and event.data["toState"] == "terminated":
                    break
    everything = await history(user, session["id"], "created", "phase", "state", "failure")
    assert [event.id for event in seen] == [event.id for event in everything]


async def test_a_session_created_and_deleted_while_its_agent_is_dead_never_starts(stack, user):
    with stack.held("agent-local"):
        session = await user.launch("starter_terminal")
        answer = await user.delete(session["id"])
        assert answer.status_code == 202
    await user.wait_for(session["id"], "terminated", seconds=30)
    commands = (await user.get(f"/sessions/{session['id']}/commands")).json()["items"]
    assert {command["action"]: command["state"] for command in commands} == {
        "start_session": "superseded",
        "stop_session": "completed",
    }
    assert (await user.session(session["id"]))["phases"] == []


async def test_a_live_stream_outlives_the_control_plane(stack, user):
    session = await user.launch("starter_desktop")
    await user.wait_for(session["id"], "running")
    ticket = (await user.post(f"/sessions/{session['id']}/connect")).json()
    async with websockets.connect(
        ticket["url"], subprotocols=ticket["protocols"], compression=None
    ) as socket:
        assert await socket.recv() == b"RFB 003.008\n"
        pids = {}
        for service in ["gateway", "auth", "session", "catalog-sync", "nats", "postgres"]:
            pids[service] = stack.kill(service)
        await socket.send(b"RFB 003.008\n")
        assert await socket.recv() == b"\x01\x01"
        await socket.send(b"\x01")
        assert await socket.recv() == b"\0\0\0\0"
        for service, pid in pids.items():
            await until_alive_again(stack, service, pid)
        await socket.send(b"\x01")
        assert len(await socket.recv()) >= 24
    assert (await user.wait_for(session["id"], "running"))["state"] == "running"
