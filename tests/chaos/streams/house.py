"""A house full of viewers: an ensemble, its desktops, and so many people watching."""

import asyncio
import functools
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from tests.support.ensemble import Balancer, Ensemble
from tests.support.stack import ADMIN_PASSWORD, Api, patiently, sign_in
from tests.support.stamps import PERIOD, Gap, Interrupted, StampingDesktops, Viewer

from streamspace_common.testing.waiting import eventually

VIEWERS = 50
_AT_ONCE = 10


@dataclass
class House:
    """Everybody in it, and what they watch."""

    ensemble: Ensemble
    api: Api
    desktops: StampingDesktops
    viewers: list[Viewer]

    @property
    def faults(self) -> list[str]:
        """What anybody found wrong with a stream, in either direction."""
        return [*self.desktops.faults, *(f for viewer in self.viewers for f in viewer.faults)]

    @property
    def gaps(self) -> list[Gap]:
        return [gap for viewer in self.viewers for gap in viewer.gaps]

    def forget_gaps(self) -> None:
        for viewer in self.viewers:
            viewer.gaps.clear()

    async def all_see_what_is_new(self, more: int = 3) -> None:
        """Return when everybody has got `more` pictures that were drawn after this call."""
        wanted = self.desktops.number + more
        await eventually(
            lambda: min(viewer.last for viewer in self.viewers) >= wanted,
            timeout=60,
            message="somebody sees nothing new",
        )

    async def states(self) -> set[str]:
        """The states that the sessions are in."""
        found = set()
        for viewer in self.viewers:
            answer = await patiently(functools.partial(self.api.get, f"/sessions/{viewer.session}"))
            found.add(answer.json()["state"])
        return found


@asynccontextmanager
async def watched(ensemble: Ensemble, stream_port: int) -> AsyncIterator[House]:
    """Start the desktops and the balancer, launch sessions, and let people watch them."""
    async with AsyncExitStack() as stack:
        desktops = await stack.enter_async_context(StampingDesktops(stream_port))
        await stack.enter_async_context(Balancer(ensemble.stream_port, ensemble.relay_addresses))
        client = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=ensemble.url, timeout=30, trust_env=False)
        )
        api = await sign_in(client, "admin", ADMIN_PASSWORD)
        sessions = await _launch(api, VIEWERS)
        viewers = [Viewer(session, _tickets(api, session)) for session in sessions]
        house = House(ensemble, api, desktops, viewers)
        watching = [asyncio.create_task(viewer.run()) for viewer in viewers]
        try:
            await house.all_see_what_is_new()
            yield house
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        for session in sessions:
            await patiently(functools.partial(api.delete, session))


async def _launch(api: Api, count: int) -> list[str]:
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one() -> str:
        async with limit:
            answer = await patiently(
                lambda: api.post("/sessions", json={"template": "starter_desktop"}),
                accepted=(202,),
            )
            session = str(answer.json()["session"]["id"])
            await api.wait_for(session, "running", seconds=60)
            return session

    return list(await asyncio.gather(*(one() for _ in range(count))))


def _tickets(api: Api, session: str) -> Any:
    async def ticket() -> dict[str, Any]:
        try:
            answer = await api.post(f"/sessions/{session}/connect")
        except httpx2.HTTPError as error:
            raise Interrupted(1006, str(error)) from error
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
        # As services/web/src/viewer/reconnect.ts: what is wrong with the request is final.
        final = 400 <= answer.status_code < 500 and answer.status_code != 429
        raise Interrupted(4409 if final else 1013, answer.text)

    return ticket


def figures(title: str, gaps: Sequence[Gap]) -> str:
    """One line for docs/reference/streams-under-restarts.md."""
    if not gaps:
        return f"{title}: no stream was interrupted"
    seconds = sorted(gap.seconds for gap in gaps)
    missed = [gap.missed * PERIOD for gap in gaps]
    return (
        f"{title}: {len(gaps)} interruptions, without a picture p50 "
        f"{statistics.median(seconds):.2f} s, longest {seconds[-1]:.2f} s; pictures missed worth "
        f"{max(missed):.1f} s at most; tries {max(gap.attempts for gap in gaps)} at most; codes "
        f"{sorted({gap.code for gap in gaps})}; failed tries "
        f"{dict(Counter(why for gap in gaps for why in gap.failed))}"
    )
