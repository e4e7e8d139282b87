"""A user's way to a session, as a browser takes it: the API, then the relay."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import websockets
from tests.kubernetes.sites import CATALOG, Site
from tests.support.rfb import RfbClient
from tests.support.stack import Api, Event

PATIENCE = 120
"""Seconds until a session is as it should be, on a machine with more to do."""


async def begin(user: Api, site: Site | None, template: str = "desktop", **more: Any) -> str:
    """Ask for a session; its id."""
    placed = {"clusterId": site.id} if site else {}
    session = await user.launch(f"{CATALOG}_{template}", **placed, **more)
    return str(session["id"])


async def start(user: Api, site: Site, **more: Any) -> str:
    """A session that runs; its id."""
    session = await begin(user, site, **more)
    await user.wait_for(session, "running", seconds=PATIENCE)
    return session


async def stop(user: Api, *sessions: str) -> None:
    for session in sessions:
        assert (await user.delete(session)).status_code == 202
    for session in sessions:
        await user.wait_for(session, "terminated", seconds=PATIENCE)


async def act(user: Api, session: str, action: str, state: str) -> None:
    """Hibernate or wake a session, and wait until it has."""
    answer = await user.post(f"/sessions/{session}/{action}")
    assert answer.status_code == 202, answer.text
    await user.wait_for(session, state, seconds=PATIENCE)


async def connect(user: Api, session: str) -> dict[str, Any]:
    answer = await user.post(f"/sessions/{session}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    ticket: dict[str, Any] = answer.json()
    return ticket


def dial(ticket: dict[str, Any]) -> websockets.connect:
    return websockets.connect(
        ticket["url"],
        subprotocols=ticket["protocols"],
        compression=None,
        max_size=None,
        open_timeout=30,
    )


@contextlib.asynccontextmanager
async def viewing(user: Api, session: str) -> AsyncIterator[RfbClient]:
    """A viewer that has seen the whole screen, with a window on it."""
    async with dial(await connect(user, session)) as socket:
        viewer = RfbClient(socket, patience=60)
        await viewer.connect()
        await viewer.see_all()
        while len(viewer.colours) < 2:
            # The terminal comes a moment after the desktop.
            await viewer.ask(incremental=True)
            await viewer.update()
        yield viewer


async def history(user: Api, session: str, *names: str, until: str) -> list[Event]:
    """The stored events of a session, up to the newest that brought it to the state `until`."""
    current = await user.session(session)
    found: list[Event] = []
    assert current["state"] == until
    async with user.events(f"/sessions/{session}/events", last_event_id=0) as events:
        async with asyncio.timeout(30):
            async for event in events:
                if event.name in names:
                    found.append(event)
                if event.name == "state" and (
                    event.data["toState"] == until
                    and event.data["generation"] == current["generation"]
                ):
                    break
    return found
