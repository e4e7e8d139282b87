"""A person at the browser: sign in, launch, type, come back, end; seen in real Chromium."""

import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect
from tests.support.stack import ADMIN_PASSWORD, FINAL, Api, Stack
from tests.support.stack import sign_in as sign_in_by_api

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


OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def open_page(stack) -> AsyncIterator[OpenPage]:
    """Opens pages that share no cookie, as two people's browsers do."""
    errors: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        async def open_one(width: int = 1280, height: int = 800) -> Page:
            context = await browser.new_context(
                base_url=stack.url.replace("127.0.0.1", "localhost"),
                viewport={"width": width, "height": height},
            )
            page = await context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            return page

        yield open_one
        await browser.close()
    assert errors == []


@pytest.fixture
async def page(open_page) -> Page:
    opened: Page = await open_page()
    return opened


# How soon a page shows something is a matter for the benchmarks.
expect.set_options(timeout=20_000)


@dataclass
class Person:
    """Somebody with an account, seen also by the API."""

    username: str
    password: str
    api: Api


@pytest.fixture
async def person(http, admin) -> AsyncIterator[Person]:
    """A fresh user; what the test left running is ended."""
    username, password = f"person-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    answer = await admin.post("/users", json={"username": username, "password": password})
    assert answer.status_code == 201, answer.text
    someone = Person(username, password, await sign_in_by_api(http, username, password))
    yield someone
    for session in (await someone.api.get("/sessions")).json()["items"]:
        await someone.api.delete(session["id"])
        await someone.api.wait_for(session["id"], *FINAL)


async def sign_in(page: Page, username: str, password: str) -> None:
    await page.goto("/")
    await page.get_by_test_id("login-username").fill(username)
    await page.get_by_test_id("login-password").fill(password)
    await page.get_by_test_id("login-submit").click()
    await expect(page.get_by_test_id("catalog-search")).to_be_visible()


async def launch(page: Page, template: str = "starter_terminal") -> str:
    """Launch from the catalog and wait for the picture; the session's id."""
    await page.get_by_test_id(f"launch-{template}").click()
    await page.get_by_test_id("launch-confirm").click()
    await wait_for_desktop(page)
    return page.url.rstrip("/").split("/")[-2]


async def type_line(page: Page, line: str) -> None:
    """Click into the middle of the desktop, where the terminal is, and type."""
    box = await page.get_by_test_id("viewer-canvas").bounding_box()
    assert box
    await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await page.keyboard.type(line, delay=10)
    await page.keyboard.press("Enter")


def in_a_home(stack: Stack, name: str, text: str) -> Callable[[], bool]:
    return lambda: any(file.read_text() == text for file in stack.homes().glob(f"*/{name}"))


async def typing_works(stack: Stack, page: Page) -> None:
    name = f"{secrets.token_hex(4)}.txt"

    async def typed() -> bool:
        # A window manager that has just begun may not give the first click its focus.
        await type_line(page, f"echo here > ~/{name}")
        with contextlib.suppress(AssertionError):
            await eventually(in_a_home(stack, name, "here\n"), timeout=3)
            return True
        return False

    await eventually(typed, timeout=20, message="typing had no effect in the home")


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


async def test_what_no_cluster_can_run_says_so_before_a_click(page, person):
    await sign_in(page, person.username, person.password)
    card = page.get_by_test_id("template-card-starter_gimp")
    await expect(card).to_contain_text("Needs a Kubernetes or Docker cluster")
    await expect(page.get_by_test_id("launch-starter_gimp")).to_have_count(0)
    await expect(page.get_by_test_id("launch-starter_desktop")).to_be_in_viewport()
    await page.get_by_test_id("details-starter_gimp").click()
    await expect(page.get_by_test_id("launch-hindrance")).to_be_visible()
    await expect(page.get_by_test_id("launch-confirm")).to_have_count(0)


async def test_two_double_clicks_start_one_session(page, person):
    await sign_in(page, person.username, person.password)
    await page.get_by_test_id("launch-starter_terminal").dblclick()
    await page.get_by_test_id("launch-confirm").dblclick()
    await wait_for_desktop(page)
    answer = await person.api.get("/sessions", params={"includeFinal": True})
    assert len(answer.json()["items"]) == 1


async def test_the_viewer_comes_back_by_itself_after_the_relay_was_killed(stack, page, person):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    desktop_processes = set(stack.processes_of(session_id))
    stack.kill("vnc-proxy")
    await expect(page.get_by_role("status", name="Reconnecting…")).to_be_visible()
    await wait_for_desktop(page)
    assert desktop_processes <= set(stack.processes_of(session_id))
    await typing_works(stack, page)


WATCH_NOTICES = """() => {
  window.notices = [];
  new MutationObserver(() => {
    const notice = document.querySelector('.viewer-notice');
    if (!notice) return;
    const picture = Boolean(document.querySelector('.viewer-last-frame'));
    window.notices.push([notice.getAttribute('aria-label'), picture]);
  }).observe(document.body, { subtree: true, childList: true });
}"""


async def test_a_restarted_relay_shows_reconnecting_over_the_last_picture_and_no_more(
    stack, page, person
):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    desktop_processes = set(stack.processes_of(session_id))
    await page.evaluate(WATCH_NOTICES)
    stack.kill("vnc-proxy", signal.SIGTERM)

    async def noticed() -> bool:
        return bool(await page.evaluate("window.notices.length"))

    await eventually(noticed, timeout=20, message="the viewer did not notice")
    await wait_for_desktop(page)
    notices = await page.evaluate("window.notices")
    # Nothing was clicked, no page was left, and the picture stayed all the time.
    assert {title for title, _ in notices} == {"Reconnecting…"}
    assert all(picture for _, picture in notices)
    assert desktop_processes <= set(stack.processes_of(session_id))
    await typing_works(stack, page)


async def test_the_viewer_waits_for_a_cluster_that_does_not_answer_and_comes_back(
    stack, page, person
):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    desktop_processes = set(stack.processes_of(session_id))
    with stack.held("agent-local"):
        notice = page.get_by_role("status", name="The cluster does not answer")
        await expect(notice).to_be_visible(timeout=60_000)
        await expect(notice).to_contain_text("It comes back here by itself")
    await wait_for_desktop(page)
    assert desktop_processes <= set(stack.processes_of(session_id))
    await typing_works(stack, page)


async def test_a_session_hibernated_elsewhere_is_woken_from_the_viewer(stack, page, person):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    assert (await person.api.post(f"/sessions/{session_id}/hibernate")).status_code == 202
    await expect(page.get_by_text("This session is hibernated")).to_be_visible(timeout=15_000)
    assert stack.processes_of(session_id) == []
    await page.get_by_test_id("viewer-wake").click()
    await wait_for_desktop(page)
    await typing_works(stack, page)


async def test_a_session_deleted_elsewhere_ends_in_the_viewer_with_its_reason(page, person):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    assert (await person.api.delete(session_id)).status_code == 202
    await expect(page.get_by_test_id("viewer-disconnect-reason")).to_be_visible(timeout=15_000)
    await expect(page.get_by_text("The session has ended")).to_be_visible()
    await expect(page.get_by_role("link", name="Launch again")).to_be_visible()


async def test_a_desktop_that_died_stays_on_the_list_until_it_is_dismissed(stack, page, person):
    await sign_in(page, person.username, person.password)
    session_id = await launch(page)
    for pid in stack.processes_of(session_id):
        with contextlib.suppress(OSError):  # the others end with the display
            if "vnc" in Path(f"/proc/{pid}/comm").read_text().lower():
                os.kill(pid, signal.SIGKILL)
    await expect(page.get_by_text("The session failed")).to_be_visible(timeout=15_000)
    await page.goto("/sessions")
    row = page.get_by_test_id(f"session-row-{session_id}")
    await expect(row.get_by_test_id("session-state")).to_have_text("Failed")
    await expect(row).to_contain_text("killed by SIGKILL")
    await row.get_by_test_id("session-dismiss").click()
    await expect(row).to_have_count(0)
    await page.reload()
    await expect(page.get_by_text("No sessions yet")).to_be_visible()


async def test_signing_out_in_one_tab_signs_out_the_other(page, person):
    await sign_in(page, person.username, person.password)
    other = await page.context.new_page()
    await other.goto("/sessions")
    await expect(other.get_by_role("heading", name="My sessions")).to_be_visible()
    await page.get_by_label(f"Account of {person.username}").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_test_id("login-username")).to_be_visible()
    await expect(other.get_by_test_id("login-username")).to_be_visible()
    await other.reload()
    await expect(other.get_by_test_id("login-username")).to_be_visible()


async def test_a_user_made_by_an_admin_signs_in_and_sees_no_administration(open_page):
    username, password = f"made-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    page = await open_page()
    await sign_in(page, "admin", ADMIN_PASSWORD)
    await page.goto("/admin/users")
    await page.get_by_test_id("user-create").click()
    await page.get_by_test_id("user-username").fill(username)
    await page.get_by_test_id("user-password").fill(password)
    await page.get_by_role("button", name="Create").click()
    await expect(page.get_by_test_id(f"user-row-{username}")).to_be_visible()

    theirs = await open_page()
    await sign_in(theirs, username, password)
    await expect(theirs.get_by_role("link", name="My sessions").first).to_be_visible()
    await expect(theirs.get_by_role("link", name="Admin")).to_have_count(0)
    await theirs.goto("/admin/users")
    await expect(theirs.get_by_text("This page is for administrators")).to_be_visible()

    await page.get_by_label(f"Change {username}").click()
    await page.get_by_role("menuitem", name="Disable").click()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_test_id(f"user-row-{username}")).to_contain_text("Disabled")
    await theirs.goto("/sessions")
    await expect(theirs.get_by_test_id("login-username")).to_be_visible()


async def part(page: Page, left: int, top: int, width: int, height: int) -> str:
    """The pixels of a part of the desktop, to be compared."""
    return str(
        await page.evaluate(
            """([left, top, width, height]) => {
              const canvas = document.querySelector('[data-testid=viewer-canvas] canvas');
              return canvas.getContext('2d').getImageData(left, top, width, height).data.join();
            }""",
            [left, top, width, height],
        )
    )


async def test_the_desktop_obeys_the_mouse_and_the_size_of_the_window(page, person):
    await sign_in(page, person.username, person.password)
    await launch(page, "starter_desktop")
    # Left of every window: the desktop itself, whose menu a right click opens.
    beside = (40, 300, 100, 60)
    await page.mouse.move(500, 400)
    before = await part(page, *beside)

    async def opened() -> bool:
        await page.mouse.click(30, 290, button="right")
        with contextlib.suppress(AssertionError):
            await eventually(changed, timeout=2)
            return True
        return False

    async def changed() -> bool:
        return await part(page, *beside) != before

    await eventually(opened, timeout=15, message="a right click opened no menu")
    await page.keyboard.press("Escape")

    await page.set_viewport_size({"width": 1100, "height": 700})

    async def resized() -> bool:
        return bool(
            await page.evaluate(
                """() => {
                  const canvas = document.querySelector('[data-testid=viewer-canvas] canvas');
                  return canvas.width === 1100 && canvas.height === 700;
                }"""
            )
        )

    await eventually(resized, timeout=15, message="the desktop kept its size")


async def test_text_is_copied_into_the_desktop_and_out_of_it(stack, page, person):
    await sign_in(page, person.username, person.password)
    await launch(page)
    await typing_works(stack, page)
    name, word = f"{secrets.token_hex(4)}.txt", f"word{secrets.token_hex(4)}"

    panel = page.get_by_test_id("viewer-clipboard-text")
    await page.keyboard.press("Control+Alt+Shift")
    await page.get_by_test_id("viewer-clipboard").click()
    await panel.fill(f"echo pasted > ~/{name}")
    await page.get_by_role("button", name="Send to desktop").click()
    await expect(panel).to_have_count(0)
    await page.mouse.click(640, 500)
    await page.keyboard.press("Shift+Insert")

    async def pasted() -> bool:
        # The terminal asks for the text, so it arrives a moment after the keys.
        await page.keyboard.press("Enter")
        return in_a_home(stack, name, "pasted\n")()

    await eventually(pasted, timeout=15, message="the pasted command had no effect")

    await type_line(page, f"clear; yes {word} | head -n 20")

    async def copied() -> bool:
        await page.mouse.move(4, 120)
        await page.mouse.down()
        await page.mouse.move(600, 300, steps=4)
        await page.mouse.up()
        await page.keyboard.press("Control+Alt+Shift")
        await page.get_by_test_id("viewer-clipboard").click()
        found = word in await panel.input_value()
        await page.keyboard.press("Escape")
        await expect(panel).to_have_count(0)
        return found

    await eventually(copied, timeout=20, message="the selected text never reached the browser")


async def test_a_phone_signs_in_launches_and_shows_the_whole_desktop(open_page, person):
    page = await open_page(375, 740)

    async def fits() -> bool:
        return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    await page.goto("/")
    await expect(page.get_by_test_id("login-submit")).to_be_in_viewport()
    assert await fits()
    await sign_in(page, person.username, person.password)
    assert await fits()
    await page.get_by_test_id("launch-starter_desktop").click()
    await expect(page.get_by_test_id("launch-confirm")).to_be_in_viewport()
    assert await fits()
    await page.get_by_test_id("launch-confirm").click()
    await wait_for_desktop(page)
    assert await fits()
    drawn = await page.evaluate(
        """() => {
          const canvas = document.querySelector('[data-testid=viewer-canvas] canvas');
          return { width: canvas.width, shown: canvas.getBoundingClientRect().width };
        }"""
    )
    assert drawn["width"] >= 1024
    assert drawn["shown"] <= 375
    await page.goto("/sessions")
    await expect(page.get_by_test_id("session-open")).to_be_in_viewport()
    assert await fits()


async def test_whose_sign_in_ended_signs_in_again_and_is_where_they_were(page, person):
    session = await person.api.launch("starter_terminal")
    await person.api.wait_for(session["id"], "running")
    await page.clock.install()
    await sign_in(page, person.username, person.password)
    await page.get_by_role("link", name="My sessions").click()
    row = page.get_by_test_id(f"session-row-{session['id']}")
    await expect(row).to_be_visible()

    # The cookie is gone, and the access token's quarter of an hour is over.
    await page.context.clear_cookies()
    await page.clock.fast_forward("20:00")
    await expect(page.get_by_test_id("login-username")).to_be_visible()
    await expect(page.get_by_text("sign in again")).to_be_visible()
    await expect(row).to_have_count(0)

    await page.get_by_test_id("login-username").fill(person.username)
    await page.get_by_test_id("login-password").fill(person.password)
    await page.get_by_test_id("login-submit").click()
    await expect(row).to_be_visible()
    assert page.url.endswith("/sessions")
