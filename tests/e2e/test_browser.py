"""A person at the browser: sign in, launch, type, come back, end; seen in real Chromium."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect
from tests.support.stack import ADMIN_PASSWORD

from streamspace_common.testing.waiting import eventually

RESULTS = Path(__file__).parents[2] / "test-results"
README_IMAGE = Path(__file__).parents[2] / "docs" / "images" / "desktop.png"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def page(stack) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(
            base_url=stack.url.replace("127.0.0.1", "localhost"),
            viewport={"width": 1280, "height": 800},
        )
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        await browser.close()
        assert errors == []


async def sign_in(page: Page, username: str, password: str) -> None:
    await page.goto("/")
    await page.get_by_test_id("login-username").fill(username)
    await page.get_by_test_id("login-password").fill(password)
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("catalog-search")).to_be_visible()


async def colours(page: Page) -> int:
    """How many different colours the desktop's picture holds; a black one holds one."""
    return int(
        await page.evaluate(
            """() => {
              const canvas = document.querySelector('[data-testid=viewer-canvas] canvas');
              if (!canvas || !canvas.width) return 0;
              const data = canvas.getContext('2d')
                .getImageData(0, 0, canvas.width, canvas.height).data;
              const seen = new Set();
              for (let i = 0; i < data.length; i += 4 * 37)
                seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
              return seen.size;
            }"""
        )
    )


async def picture(page: Page) -> bytes:
    return await page.get_by_test_id("viewer-canvas").screenshot()


async def wait_for_desktop(page: Page) -> None:
    canvas = page.get_by_test_id("viewer-canvas")
    await expect(canvas).to_have_attribute("data-state", "connected", timeout=30_000)

    async def painted() -> bool:
        return await colours(page) > 3

    await eventually(painted, timeout=20, message="the desktop stayed blank")


async def test_a_person_launches_a_desktop_types_into_it_and_ends_it(stack, page):
    RESULTS.mkdir(exist_ok=True)
    await sign_in(page, "admin", ADMIN_PASSWORD)
    await page.screenshot(path=RESULTS / "catalog.png")

    await page.get_by_test_id("launch-starter_desktop").click()
    await page.get_by_test_id("launch-confirm").click()
    await wait_for_desktop(page)
    session_id = page.url.rstrip("/").split("/")[-2]
    assert session_id.startswith("admin-desktop-")

    canvas = page.get_by_test_id("viewer-canvas")
    box = await canvas.bounding_box()
    assert box
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = await picture(page)
    await page.keyboard.type("echo typed-in-a-browser > ~/proof.txt; seq 1 12", delay=15)
    await page.keyboard.press("Enter")

    def written() -> bool:
        return any(
            proof.read_text() == "typed-in-a-browser\n"
            for proof in stack.homes().glob("*/proof.txt")
        )

    await eventually(written, timeout=15, message="the command had no effect in the home")

    async def repainted() -> bool:
        return await picture(page) != before

    await eventually(repainted, timeout=10, message="the picture did not change")
    await page.screenshot(path=RESULTS / "desktop.png")
    if os.environ.get("STREAMSPACE_UPDATE_SCREENSHOT"):
        shutil.copy(RESULTS / "desktop.png", README_IMAGE)

    desktop_processes = set(stack.processes_of(session_id))
    await page.reload()
    await wait_for_desktop(page)
    assert page.url.rstrip("/").split("/")[-2] == session_id
    assert desktop_processes <= set(stack.processes_of(session_id))

    await page.goto("/sessions")
    row = page.get_by_test_id(f"session-row-{session_id}")
    await expect(row.get_by_test_id("session-state")).to_contain_text("Running", ignore_case=True)
    await page.screenshot(path=RESULTS / "sessions.png")
    await row.get_by_test_id("session-delete").click()
    await page.get_by_test_id("confirm-delete").click()
    await expect(row).to_have_count(0, timeout=15_000)
    await eventually(lambda: stack.processes_of(session_id) == [], timeout=5)


async def test_a_wrong_password_says_so_and_stays_on_the_form(page):
    await page.goto("/")
    await page.get_by_test_id("login-username").fill("admin")
    await page.get_by_test_id("login-password").fill("wrong password")
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_text("The user name or password is wrong.")).to_be_visible()
    await expect(page.get_by_test_id("login-submit")).to_be_enabled()
