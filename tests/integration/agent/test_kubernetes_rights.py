"""What the agent makes of an API server that forbids something: one that has just started
knows of nobody's rights yet, and forbids everything to everybody."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.errors import ForbiddenError
from streamspace_agent.runtimes.kubernetes.options import Access

LACKING = 'services is forbidden: User "agent" cannot create resource "services" in API group ""'
USED_UP = 'services "x" is forbidden: exceeded quota: desktops, requested: services=1'
RESOURCE = {"metadata": {"name": "x"}}


class ApiServer:
    """Forbids the first `refusals` requests, and is ready from the `starting`th question on."""

    def __init__(self, *, refusals: int, starting: int = 0, message: str = LACKING) -> None:
        self.refusals = refusals
        self.starting = starting
        self.message = message
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/readyz":
            self.starting -= 1
            return web.Response(status=200 if self.starting < 0 else 500)
        self.asked += 1
        if self.asked > self.refusals:
            return web.json_response(RESOURCE, status=201)
        told = {"kind": "Status", "reason": "Forbidden", "message": self.message}
        return web.json_response(told, status=403)


@contextlib.asynccontextmanager
async def reached(
    server: ApiServer, folder: Path, patience: float = 30
) -> AsyncIterator[ClusterApi]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"http://{host}:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    api = ClusterApi(Access(kubeconfig=kubeconfig, patience=patience), "sessions")
    await api.open()
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()


async def test_a_server_that_is_not_ready_is_asked_until_it_knows_our_rights(
    tmp_path: Path,
) -> None:
    server = ApiServer(refusals=3, starting=3)
    async with reached(server, tmp_path) as api:
        assert await api.create(kinds.SERVICE, RESOURCE) == RESOURCE


async def test_a_server_that_became_ready_meanwhile_is_asked_once_more(tmp_path: Path) -> None:
    server = ApiServer(refusals=1)
    async with reached(server, tmp_path) as api:
        assert await api.create(kinds.SERVICE, RESOURCE) == RESOURCE
    assert server.asked == 2


async def test_a_server_that_is_ready_is_believed_the_second_time(tmp_path: Path) -> None:
    server = ApiServer(refusals=1000)
    async with reached(server, tmp_path) as api:
        with pytest.raises(ForbiddenError, match="cannot create"):
            await api.create(kinds.SERVICE, RESOURCE)
    assert server.asked == 2


async def test_a_server_that_never_gets_ready_is_believed_in_the_end(tmp_path: Path) -> None:
    server = ApiServer(refusals=1000, starting=1000)
    async with reached(server, tmp_path, patience=0.2) as api:
        with pytest.raises(ForbiddenError, match="cannot create"):
            await api.create(kinds.SERVICE, RESOURCE)


async def test_a_quota_that_is_used_up_is_believed_at_once(tmp_path: Path) -> None:
    server = ApiServer(refusals=1000, message=USED_UP)
    async with reached(server, tmp_path) as api:
        with pytest.raises(ForbiddenError, match="exceeded quota"):
            await api.create(kinds.SERVICE, RESOURCE)
    assert server.asked == 1
