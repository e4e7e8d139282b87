"""A real RFB server behind the relay: two viewers, one of them only looking."""

from pathlib import Path

import pytest_asyncio
from tests.integration.vnc_proxy.parties import Proxy, ScriptedAgent
from tests.support.rfb import RfbClient

from streamspace_common.contracts.sessions import ViewerRole
from streamspace_common.testing.waiting import eventually


@pytest_asyncio.fixture
async def desktop_proxy(proxy: Proxy, agent: ScriptedAgent, xvnc: Path) -> Proxy:
    agent.target = str(xvnc)
    return proxy


async def test_pixels_come_through(desktop_proxy: Proxy) -> None:
    async with desktop_proxy.view(max_size=None) as socket:
        viewer = RfbClient(socket)
        await viewer.connect()
        assert viewer.size == (320, 200)
        await viewer.see_all()
        assert viewer.pixels >= 320 * 200


async def test_two_viewers_share_a_desktop_and_the_guest_cannot_touch_it(
    desktop_proxy: Proxy,
) -> None:
    async with (
        desktop_proxy.view(max_size=None) as first,
        desktop_proxy.view(role=ViewerRole.VIEW, max_size=None) as second,
    ):
        owner, guest = RfbClient(first), RfbClient(second)
        await owner.connect()
        await guest.connect()
        for viewer in (owner, guest):
            await viewer.see_all()
        # What the guest asks for never arrives; its next request for pixels does.
        await guest.resize(100, 100)
        await guest.ask()
        await guest.update()
        assert guest.size == (320, 200)
        await owner.resize(400, 240)
        for viewer in (owner, guest):
            while viewer.size != (400, 240):
                await viewer.ask(incremental=True)
                await viewer.update()


async def test_reloading_the_page_is_a_new_stream_to_the_same_desktop(desktop_proxy: Proxy) -> None:
    for _ in range(3):
        async with desktop_proxy.view(max_size=None) as socket:
            viewer = RfbClient(socket)
            await viewer.connect()
            await viewer.ask()
            await viewer.update()
    await eventually(lambda: len(desktop_proxy.running.relay.streams) == 0)
