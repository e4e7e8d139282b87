"""A session with a web client of its own, from launch to end, at its own address."""

import secrets
import shutil
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.async_api import async_playwright, expect
from tests.support.stack import sign_in
from tests.support.web_session import Address, connect

from streamspace_common.testing.waiting import eventually

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture
async def outside():
    """A client that is not signed in anywhere and keeps no cookies."""
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


async def running_files(stack, user):
    session = await user.launch("starter_files")
    await user.wait_for(session["id"], "running")
    [home] = [path for path in stack.homes().iterdir() if path.name.startswith(user.username)]
    return session["id"], home


async def test_files_are_browsed_at_an_address_of_their_own(stack, user, outside):
    session_id, home = await running_files(stack, user)
    (home / "kept.txt").write_text("what I keep")
    ticket = await connect(user, session_id)
    address = Address(outside, ticket["url"])
    assert address.host.startswith(f"{session_id}.localhost:")

    assert (await address.get("/")).status_code == 401
    assert (await address.enter(ticket["ticket"], "https://evil.example.org")).status_code == 403
    entered = await address.enter(ticket["ticket"], stack.url)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    listing = await address.get("/")
    assert listing.status_code == 200
    assert "kept.txt" in listing.text
    assert (await address.get("/kept.txt")).text == "what I keep"
    again = await address.enter(ticket["ticket"], stack.url)
    assert (again.status_code, "set-cookie" in again.headers) == (403, False)

    await user.delete(session_id)
    await user.wait_for(session_id, "terminated")
    ended = await address.get("/")
    assert ended.status_code in {404, 410, 502}
    assert ended.headers["content-type"].startswith("text/html")
    await eventually(lambda: stack.processes_of(session_id) == [], timeout=5)
    assert (home / "kept.txt").exists()


async def test_a_pass_opens_no_other_session(stack, user, new_user, outside):
    session_id, _ = await running_files(stack, user)
    own = Address(outside, (await connect(user, session_id))["url"])

    stranger = await new_user()
    other_id, _ = await running_files(stack, stranger)
    ticket = await connect(stranger, other_id)
    other = Address(outside, ticket["url"])
    assert (await own.enter(ticket["ticket"], stack.url)).status_code == 403
    ticket = await connect(stranger, other_id)
    assert (await other.enter(ticket["ticket"], stack.url)).status_code == 303
    assert (await other.get("/")).status_code == 200
    assert (await own.get("/", cookie=other.cookie)).status_code == 401

    await stranger.delete(other_id)
    await stranger.wait_for(other_id, "terminated")


async def test_a_web_client_survives_hibernation_and_is_never_view_only(stack, user, outside):
    session_id, home = await running_files(stack, user)
    refused = await user.post(f"/sessions/{session_id}/connect", json={"role": "view"})
    assert refused.status_code == 422
    assert "viewing only" in refused.json()["detail"]

    ticket = await connect(user, session_id)
    address = Address(outside, ticket["url"])
    assert (await address.enter(ticket["ticket"], stack.url)).status_code == 303
    await user.post(f"/sessions/{session_id}/hibernate")
    await user.wait_for(session_id, "hibernated")
    assert (await address.get("/")).status_code in {409, 410, 502}
    await user.post(f"/sessions/{session_id}/wake")
    await user.wait_for(session_id, "running")
    (home / "new.txt").write_text("after the sleep")
    assert (await address.get("/new.txt")).text == "after the sleep"


@pytest.fixture
async def page(stack):
    async with async_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = await browser.new_context(base_url=stack.url.replace("127.0.0.1", "localhost"))
        yield await context.new_page()
        await browser.close()


async def test_a_person_opens_it_in_a_tab_of_its_own(stack, http, admin, page):
    """The browser has its say too: content policy, origins, cookies, names."""
    username, password = f"person-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    await admin.post("/users", json={"username": username, "password": password})
    user = await sign_in(http, username, password)
    session_id, home = await running_files(stack, user)
    (home / "from-a-browser.txt").write_text("seen")

    await page.goto("/")
    await page.get_by_test_id("login-username").fill(username)
    await page.get_by_test_id("login-password").fill(password)
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("catalog-search")).to_be_visible()
    await page.goto("/sessions")
    row = page.get_by_test_id(f"session-row-{session_id}")
    async with page.expect_popup() as opening:
        await row.get_by_test_id("session-open").click()
    tab = await opening.value
    await expect(tab.get_by_text("from-a-browser.txt")).to_be_visible()
    assert urlsplit(tab.url).hostname == f"{session_id}.localhost"
    await tab.get_by_text("from-a-browser.txt").click()
    await expect(tab.get_by_text("seen")).to_be_visible()

    await user.delete(session_id)
    await user.wait_for(session_id, "terminated")
