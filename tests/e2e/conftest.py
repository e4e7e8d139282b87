"""All of StreamSpace, once per worker; all end-to-end tests run on one worker.

Tests talk to it over HTTP and WebSocket only, and look at processes and folders where
a claim is about them.
"""

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.stack import (
    ADMIN_PASSWORD,
    FINAL,
    Api,
    Stack,
    end,
    launch,
    patiently,
    sign_in,
    wait_until_ready,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = launch(tmp_path_factory.mktemp("stack") / "data")
    try:
        asyncio.run(wait_until_ready(running))
        yield running
    finally:
        end(running)


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=stack.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
async def admin(http: httpx2.AsyncClient) -> Api:
    return await sign_in(http, "admin", ADMIN_PASSWORD)


@pytest.fixture
async def new_user(http: httpx2.AsyncClient, admin: Api) -> Callable[..., Any]:
    async def make(name: str | None = None, role: str = "user") -> Api:
        username = name or f"user-{secrets.token_hex(4)}"
        password = secrets.token_urlsafe(16)
        answer = await admin.post(
            "/users", json={"username": username, "password": password, "role": role}
        )
        assert answer.status_code == 201, answer.text
        return await sign_in(http, username, password)

    return make


@pytest.fixture
async def user(new_user: Callable[..., Any]) -> AsyncIterator[Api]:
    """A fresh user; what the test left running is ended."""
    someone: Api = await new_user()
    yield someone
    answer = await patiently(lambda: someone.get("/sessions"))
    for session in answer.json()["items"]:
        await patiently(functools.partial(someone.delete, session["id"]))
        await someone.wait_for(session["id"], *FINAL)
