"""A session's life over HTTP and WebSocket, on the process runtime."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
import websockets

from streamspace_common.testing.waiting import eventually

PHASES = ["scheduled", "created", "started", "ready"]


async def connect(user, session_id, role="control"):
    answer = await user.post(f"/sessions/{session_id}/connect", json={"role": role})
    assert answer.status_code == 200, answer.text
    return answer.json()


def dial(ticket, origin=None):
    return websockets.connect(
        ticket["url"], subprotocols=ticket["protocols"], compression=None, origin=origin
    )


async def read_exactly(socket, count):
    data = b""
    while len(data) < count:
        data += await socket.recv()
    assert len(data) == count
    return data


async def test_create_follow_connect_delete_leaves_nothing(stack, user):
    answer = await user.post("/sessions", json={"template": "starter_desktop"})
    assert answer.status_code == 202
    session_id = answer.json()["session"]["id"]
    assert answer.headers["location"] == f"/api/v1/sessions/{session_id}"
    assert answer.json()["commandId"].startswith("cmd-")

    phases, states = [], []
    async with user.events(f"/sessions/{session_id}/events", last_event_id=0) as events:
        async with asyncio.timeout(30):
            async for event in events:
                if event.name == "phase":
                    phases.append(event.data["timing"]["phase"])
                if event.name == "state":
                    states.append(event.data["toState"])
                    if states[-1] == "running":
                        break
    assert [phase for phase in phases if phase in PHASES] == PHASES
    assert states == ["starting", "running"]
    assert len(stack.processes_of(session_id)) >= 3

    ticket = await connect(user, session_id)
    async with dial(ticket) as socket:
        assert socket.subprotocol == "binary"
        assert await read_exactly(socket, 12) == b"RFB 003.008\n"
        await socket.send(b"RFB 003.008\n")
        assert await read_exactly(socket, 2) == b"\x01\x01"

    answer = await user.delete(session_id)
    assert answer.status_code == 202
    assert answer.json()["session"]["state"] == "terminating"
    ended = await user.wait_for(session_id, "terminated")
    assert ended["terminatedAt"]
    await eventually(lambda: stack.processes_of(session_id) == [], timeout=5)
    assert stack.paths_of(session_id) == []
    assert (await user.delete(session_id)).status_code == 202


async def test_a_ticket_opens_once(user):
    session = await user.launch()
    await user.wait_for(session["id"], "running")
    ticket = await connect(user, session["id"])
    async with dial(ticket) as socket:
        await read_exactly(socket, 12)
    async with dial(ticket) as again:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await again.recv()
    assert closed.value.rcvd.code == 4401
    assert closed.value.rcvd.reason


async def test_a_foreign_page_cannot_open_a_stream(user):
    session = await user.launch()
    await user.wait_for(session["id"], "running")
    ticket = await connect(user, session["id"])
    async with dial(ticket, origin="https://evil.example.org") as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 4403


async def test_two_viewers_share_one_session(user):
    session = await user.launch()
    await user.wait_for(session["id"], "running")
    first, second = await connect(user, session["id"]), await connect(user, session["id"])
    async with dial(first) as one, dial(second) as two:
        assert await read_exactly(one, 12) == b"RFB 003.008\n"
        assert await read_exactly(two, 12) == b"RFB 003.008\n"


async def test_hibernate_keeps_the_home_and_wake_brings_it_back(stack, user):
    session = await user.launch()
    session_id = session["id"]
    await user.wait_for(session_id, "running")
    [home] = [path for path in stack.homes().iterdir() if path.name.startswith(user.username)]
    (home / "kept.txt").write_text("kept")

    assert (await user.post(f"/sessions/{session_id}/hibernate")).status_code == 202
    await user.wait_for(session_id, "hibernated")
    await eventually(lambda: stack.processes_of(session_id) == [], timeout=5)
    refused = await user.post(f"/sessions/{session_id}/connect")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong-state")

    assert (await user.post(f"/sessions/{session_id}/wake")).status_code == 202
    await user.wait_for(session_id, "running")
    assert (home / "kept.txt").read_text() == "kept"
    async with dial(await connect(user, session_id)) as socket:
        assert await read_exactly(socket, 12) == b"RFB 003.008\n"


async def test_five_users_at_once_see_only_their_own(new_user):
    users = [await new_user() for _ in range(5)]
    sessions = await asyncio.gather(*(user.launch("starter_terminal") for user in users))
    await asyncio.gather(
        *(
            user.wait_for(session["id"], "running")
            for user, session in zip(users, sessions, strict=True)
        )
    )
    for user, session in zip(users, sessions, strict=True):
        items = (await user.get("/sessions")).json()["items"]
        assert [item["id"] for item in items] == [session["id"]]
        async with dial(await connect(user, session["id"])) as socket:
            assert await read_exactly(socket, 12) == b"RFB 003.008\n"

    stranger, session_id = users[0], sessions[1]["id"]
    for method, path in [
        ("GET", ""), ("DELETE", ""), ("POST", "/hibernate"), ("POST", "/wake"),
        ("POST", "/connect"), ("POST", "/keepalive"), ("GET", "/commands"), ("GET", "/events"),
    ]:  # fmt: skip
        answer = await stranger.request(method, f"/sessions/{session_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), (method, path)

    own = await connect(stranger, sessions[0]["id"])
    own["url"] = own["url"].replace(sessions[0]["id"], session_id)
    async with dial(own) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code in {4401, 4404}

    for user, session in zip(users, sessions, strict=True):
        await user.delete(session["id"])
    for user, session in zip(users, sessions, strict=True):
        await user.wait_for(session["id"], "terminated")


async def test_a_desktop_that_dies_fails_its_session_within_seconds(stack, user):
    session = await user.launch()
    await user.wait_for(session["id"], "running")
    for pid in stack.processes_of(session["id"]):
        # A short-lived helper of the desktop may have ended meanwhile.
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(("Xvnc", "Xtigervnc")):
                os.kill(pid, signal.SIGKILL)
    failed = await user.wait_for(session["id"], "failed", seconds=5)
    assert failed["reason"] == "desktop-died"
    assert failed["message"]
    await eventually(lambda: stack.processes_of(session["id"]) == [], timeout=5)


async def test_disabling_a_user_cuts_their_streams_at_once(admin, user):
    session = await user.launch("starter_terminal")
    await user.wait_for(session["id"], "running")
    async with dial(await connect(user, session["id"])) as socket:
        await read_exactly(socket, 12)
        path = f"/users/{user.user['id']}"
        assert (await admin.request("PATCH", path, json={"disabled": True})).status_code == 200
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 20)
    assert closed.value.rcvd.code == 4401
    assert "disabled" in closed.value.rcvd.reason
    assert (await admin.request("PATCH", path, json={"disabled": False})).status_code == 200
