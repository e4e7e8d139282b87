"""Readiness tells what a process lacks; the server around it starts and stops cleanly."""

import asyncio
import socket

import httpx2
import pytest
from fastapi import FastAPI

from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.web.health import Health, create_app, serve


async def passing() -> bool:
    return True


async def failing() -> bool:
    return False


async def raising() -> bool:
    raise OSError("gone")


async def get(health: Health, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(create_app(health, "tests", "1.0"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_a_process_without_needs_is_ready() -> None:
    answer = await get(Health(), "/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "draining": False, "checks": {}}


async def test_one_failed_check_makes_it_not_ready_and_is_named() -> None:
    health = Health()
    health.add("bus", passing)
    health.add("database", failing)
    health.add("catalog", raising)
    answer = await get(health, "/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"bus": True, "database": False, "catalog": False}


async def test_a_draining_process_is_healthy_but_not_ready() -> None:
    health = Health()
    health.add("bus", passing)
    health.drain()
    assert (await get(health, "/readyz")).status_code == 503
    assert (await get(health, "/healthz")).status_code == 200


async def test_metrics_tell_what_runs() -> None:
    answer = await get(Health(), "/metrics")
    assert 'streamspace_build_info{service="tests",version="1.0"} 1.0' in answer.text
    assert "process_cpu_seconds_total" in answer.text


async def test_it_serves_on_a_free_port_until_stopped() -> None:
    server = await serve(create_app(Health(), "tests"), "127.0.0.1", 0)
    assert server.port > 0
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/healthz")
    assert answer.status_code == 200
    await server.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()


async def test_a_running_request_ends_before_the_server_does() -> None:
    app = FastAPI()
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        begun.set()
        await may_end.wait()
        return "done"

    server = await serve(app, "127.0.0.1", 0)
    async with httpx2.AsyncClient() as client:
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/slow"))
        await begun.wait()
        stopping = asyncio.create_task(server.stop())
        may_end.set()
        answer = await request
        await stopping
    assert answer.json() == "done"


async def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FatalError, match=f"Cannot listen on 127.0.0.1:{port}: .*in use"):
            await serve(create_app(Health(), "tests"), "127.0.0.1", port)
