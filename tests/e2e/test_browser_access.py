"""The web app without a mouse, and for those who hear it: keys, names, headings."""

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect
from tests.support.stack import ADMIN_PASSWORD, FINAL, Api, Stack

PAGES = [
    "/",
    "/sessions",
    "/admin/clusters",
    "/admin/catalogs",
    "/admin/sessions",
    "/admin/operations",
    "/admin/users",
    "/nothing/here",
]
# What a screen reader would say of each control, as far as a script can tell, and of the page.
NAMELESS = """() => {
  const nameOf = (element) =>
    (element.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent ?? '').join(' ') ||
    element.getAttribute('aria-label') ||
    [...(element.labels ?? [])].map((label) => label.textContent).join(' ') ||
    element.textContent || element.getAttribute('title') || '';
  return [...document.querySelectorAll('button, a[href], input, select, textarea, [role=button]')]
    .filter((element) => element.checkVisibility() && element.type !== 'hidden')
    .filter((element) => nameOf(element).trim() === '')
    .map((element) => element.outerHTML.slice(0, 200));
}"""
FACTS = """() => ({
  headings: document.querySelectorAll('h1').length,
  title: document.title,
  language: document.documentElement.lang,
  wide: document.documentElement.scrollWidth > innerWidth,
})"""

expect.set_options(timeout=20_000)


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


async def sign_in_by_keys(page: Page) -> None:
    await page.goto("/")
    await expect(page.get_by_test_id("login-username")).to_be_focused()
    await page.keyboard.type("admin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(ADMIN_PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("catalog-search")).to_be_visible()


async def tab_to(page: Page, test_id: str, *, at_most: int = 60) -> None:
    """Go on by the Tab key until the control has the focus."""
    for _ in range(at_most):
        await page.keyboard.press("Tab")
        focused = await page.evaluate("document.activeElement?.getAttribute('data-testid')")
        if focused == test_id:
            return
    raise AssertionError(f"{test_id} is not reached by the Tab key")


async def test_a_person_without_a_mouse_launches_leaves_and_deletes(page: Page, admin: Api) -> None:
    await sign_in_by_keys(page)
    await tab_to(page, "launch-starter_terminal")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("launch-confirm")).to_be_focused()
    await page.keyboard.press("Enter")
    canvas = page.get_by_test_id("viewer-canvas")
    await expect(canvas).to_have_attribute("data-state", "connected", timeout=60_000)
    session = page.url.rstrip("/").split("/")[-2]

    # Every key belongs to the desktop but for these three, which lead out of it.
    await page.keyboard.press("Control+Alt+Shift")
    await expect(page.get_by_label("Back to my sessions")).to_be_focused()
    await page.keyboard.press("Enter")
    row = page.get_by_test_id(f"session-row-{session}")
    await expect(row).to_be_visible()
    await tab_to(page, "session-delete")
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("confirm-delete")).to_be_visible()
    await tab_to(page, "confirm-delete", at_most=8)
    await page.keyboard.press("Enter")
    await expect(row).to_have_count(0)
    await admin.wait_for(session, *FINAL)


@pytest.mark.parametrize("width", [1280, 390])
async def test_every_control_of_every_page_has_a_name(page: Page, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 844})
    await page.goto("/")
    await expect(page.get_by_test_id("login-submit")).to_be_visible()
    assert await page.evaluate(NAMELESS) == []
    await sign_in_by_keys(page)
    wrong = {}
    for path in PAGES:
        await page.goto(path)
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
        facts = await page.evaluate(FACTS)
        nameless = await page.evaluate(NAMELESS)
        if nameless or not facts["title"] or facts["language"] != "en" or facts["wide"]:
            wrong[path] = (facts, nameless)
    assert wrong == {}


async def test_a_click_that_is_answered_late_is_not_sent_twice(page: Page, admin: Api) -> None:
    await sign_in_by_keys(page)
    deleted = []

    async def slowly(route):
        if route.request.method == "DELETE":
            deleted.append(route.request.url)
            await page.wait_for_timeout(800)
        await route.continue_()

    session = (await admin.launch("starter_terminal"))["id"]
    await admin.wait_for(session, "running")
    await page.route("**/api/v1/sessions/*", slowly)
    await page.goto("/sessions")
    row = page.get_by_test_id(f"session-row-{session}")
    await row.get_by_test_id("session-delete").click()
    button = page.get_by_test_id("confirm-delete")
    await button.dblclick(force=True)
    await expect(row).to_have_count(0)
    assert len(deleted) == 1
    await admin.wait_for(session, *FINAL)
