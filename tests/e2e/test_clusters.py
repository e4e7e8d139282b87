"""A second cluster's whole way out: revoked, lost with its machine, removed, enrolled anew."""

import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect
from tests.support.agent_process import Agent
from tests.support.stack import ADMIN_PASSWORD, Api, Stack

from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.testing.waiting import eventually

Joins = Callable[[str], Awaitable[Agent]]

expect.set_options(timeout=20_000)


@pytest.fixture
def name() -> str:
    return f"far-{secrets.token_hex(3)}"


@pytest.fixture
async def joins(admin: Api, tmp_path: Path) -> AsyncIterator[Joins]:
    """Enrols a cluster and starts an agent of it; both are gone when the test is."""
    async with AsyncExitStack() as agents:

        async def join(cluster: str) -> Agent:
            folder = tmp_path / f"{cluster}-{secrets.token_hex(2)}"
            folder.mkdir(mode=0o700)
            agent = Agent(folder)
            agent.give(Enrolment.model_validate(await enrolled(admin, cluster)))
            await agent.start()
            agents.push_async_callback(agent.end)
            await eventually(lambda: _is(admin, cluster, "online"), timeout=60)
            return agent

        yield join


async def enrolled(admin: Api, cluster: str) -> Any:
    answer = await admin.post("/clusters", json={"id": cluster})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def revoked(admin: Api, cluster: str) -> None:
    answer = await admin.post(f"/clusters/{cluster}/revoke")
    assert answer.status_code == 204, answer.text


async def removed(admin: Api, cluster: str, *, end_sessions: bool = False) -> Any:
    params = {"endSessions": str(end_sessions).lower()}
    return await admin.request("DELETE", f"/clusters/{cluster}", params=params)


async def listed(admin: Api) -> dict[str, Any]:
    return {one["id"]: one for one in (await admin.get("/clusters")).json()["items"]}


async def _is(admin: Api, cluster: str, presence: str) -> bool:
    found = (await listed(admin)).get(cluster)
    return found is not None and bool(found["presence"] == presence)


async def test_a_lost_cluster_is_revoked_removed_and_its_name_used_again(
    admin: Api, user: Api, joins: Joins, name: str
) -> None:
    agent = await joins(name)
    session = await user.launch("starter_terminal", clusterId=name)
    await user.wait_for(session["id"], "running", seconds=60)

    problem = (await removed(admin, name)).json()
    assert problem["code"] == "wrong-state"

    await agent.end(signal.SIGKILL)
    await revoked(admin, name)
    await eventually(lambda: _revoked(admin, name), timeout=30)
    refused = await user.post("/sessions", json={"template": "starter_terminal", "clusterId": name})
    assert (refused.status_code, refused.json()["code"]) == (409, "no-cluster")
    assert "has been revoked" in refused.json()["detail"]
    shown = await user.wait_for(session["id"], "unknown", seconds=60)
    assert shown["reason"] == "cluster-revoked"

    problem = (await removed(admin, name)).json()
    assert (problem["status"], problem["code"]) == (409, "wrong-state")
    assert "has 1 session that has not ended" in problem["detail"]
    answer = await removed(admin, name, end_sessions=True)
    assert answer.json() == {"clusterId": name, "endedSessions": 1}
    assert name not in await listed(admin)
    ended = await user.session(session["id"])
    assert (ended["state"], ended["reason"]) == ("failed", "cluster-removed")
    assert (await removed(admin, name)).status_code == 404

    # Its agent comes back with what it had, and is not let in; nor does that show it again.
    await agent.start()
    await eventually(lambda: agent.said("does not take this enrolment") > 0, timeout=60)
    assert name not in await listed(admin)
    await agent.end()

    successor = await joins(name)
    after = await user.launch("starter_terminal", clusterId=name)
    await user.wait_for(after["id"], "running", seconds=60)
    assert (await listed(admin))[name]["reservedSessions"] == 1
    await user.delete(after["id"])
    await user.wait_for(after["id"], "terminated", seconds=60)
    await successor.end()
    await revoked(admin, name)
    assert (await removed(admin, name)).status_code == 200


async def _revoked(admin: Api, cluster: str) -> bool:
    return (await listed(admin))[cluster]["revokedAt"] is not None


@pytest.fixture
async def page(stack: Stack) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--no-first-run"],
        )
        context = await browser.new_context(
            base_url=stack.url.replace("127.0.0.1", "localhost"),
            viewport={"width": 1280, "height": 800},
        )
        yield await context.new_page()
        await browser.close()


async def test_an_administrator_revokes_and_removes_a_cluster_in_the_web_app(
    page: Page, admin: Api, name: str
) -> None:
    await enrolled(admin, name)
    await page.goto("/admin/clusters")
    await page.get_by_test_id("login-username").fill("admin")
    await page.get_by_test_id("login-password").fill(ADMIN_PASSWORD)
    await page.get_by_test_id("login-submit").click()

    card = page.get_by_test_id(f"cluster-{name}")
    await card.get_by_test_id("cluster-revoke").click()
    await page.get_by_test_id("cluster-revoke-confirm").click()
    await expect(card.get_by_test_id("cluster-access")).to_have_text("Access revoked")
    await expect(card.get_by_test_id("cluster-presence")).to_have_text("Offline")

    await page.goto("/admin/operations")
    row = page.get_by_test_id(f"operations-cluster-{name}")
    await expect(row.get_by_test_id("cluster-access")).to_be_visible()

    await page.goto("/admin/clusters")
    await card.get_by_test_id("cluster-remove").click()
    await expect(page.get_by_role("dialog")).to_contain_text("for good")
    await page.get_by_test_id("cluster-remove-confirm").click()
    await expect(card).to_have_count(0)
    assert name not in await listed(admin)
