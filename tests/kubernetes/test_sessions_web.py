"""Sessions with a web client of their own, and the starter catalog's, on Kubernetes."""

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
import websockets
from tests.kubernetes.viewing import PATIENCE, stop, viewing
from tests.support.web_session import Address, connect

pytestmark = pytest.mark.timeout(600)


@pytest_asyncio.fixture
async def outside() -> AsyncIterator[httpx2.AsyncClient]:
    """A client that is not signed in anywhere and keeps no cookies."""
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


async def launch(user, site, template):
    """A running session; its id."""
    session = await user.launch(template, clusterId=site.id)
    await user.wait_for(session["id"], "running", seconds=PATIENCE)
    return session["id"]


async def entered(user, session, outside, origin):
    """The session's own address, with the right to be there."""
    ticket = await connect(user, session)
    address = Address(outside, ticket["url"])
    assert (await address.enter(ticket["ticket"], origin)).status_code == 303
    return address


async def test_a_web_client_in_a_pod_has_an_origin_of_its_own(user, site, control_plane, outside):
    session = await launch(user, site, "tests_web")
    ticket = await connect(user, session)
    address = Address(outside, ticket["url"])
    assert address.host.startswith(f"{session}.localhost:")
    assert (await address.get("/")).status_code == 401
    assert (await address.enter(ticket["ticket"], "https://evil.example.org")).status_code == 403

    address = await entered(user, session, outside, control_plane.url)
    told = await address.get("/some/page?of=it")
    assert told.status_code == 200
    assert told.text.startswith("GET /some/page?of=it HTTP/1.1")
    # The relay's own cookie is for the relay.
    assert address.cookie["Cookie"].partition("=")[2] not in told.text

    async with address.socket("/socket") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with Address(outside, ticket["url"]).socket("/socket"):
            pass
    assert refused.value.response.status_code == 401
    await stop(user, session)
    assert (await address.get("/")).status_code in {404, 410, 502}


async def test_the_starter_catalog_opens_from_our_own_image(user, site, control_plane, outside):
    desktop = await launch(user, site, "starter_desktop")
    async with viewing(user, desktop) as viewer:
        assert viewer.size == (1280, 800)
        assert len(viewer.colours) > 2
    assert site.inside(desktop, "id -u; pgrep -c tint2").split() == ["1000", "1"]
    site.inside(desktop, "echo kept > $HOME/kept.txt")
    await stop(user, desktop)

    files = await launch(user, site, "starter_files")
    address = await entered(user, files, outside, control_plane.url)
    assert "kept.txt" in (await address.get("/")).text
    assert (await address.get("/kept.txt")).text == "kept\n"
    await stop(user, files)

    terminal = await launch(user, site, "starter_terminal")
    async with viewing(user, terminal) as viewer:
        assert len(viewer.colours) > 1
    assert site.inside(terminal, "pgrep -c tint2 || true").strip() == "0"
    await stop(user, terminal)
