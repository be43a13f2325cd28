"""The console in Chromium, by keyboard where that is enough: every page at two widths, light and dark, with axe.

Arguments: root of the gateway, key, path of Chromium, version of a router that is not live.
"""

from __future__ import annotations

import sys
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT, KEY, CHROMIUM, ROUTER = sys.argv[1:]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"
PAGES = ("decisions", "decisions?days=&doubt=unsure&live=1", "experts", "spend", "routers", "reports", "nothing")
TEXT = "Something red, please"

expect.set_options(timeout=100_000)  # ms, as tests.waiting has: the machine may be busy


def check(page: Page) -> None:
    """The page is as wide as the window, and axe finds nothing."""
    where = f"{page.url} at {page.viewport_size}"
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window, f"{where} scrolls sideways: {width} > {window}"
    page.evaluate(AXE)  # by the debugger, which the content policy does not bind
    found = page.evaluate(f"axe.run({RULES})")
    assert len(found["passes"]) > 10, where
    assert not found["violations"], (
        f"{where}: {[(each['id'], each['nodes'][0]['html']) for each in found['violations']]}"
    )


def open_page(browser: Browser, width: int, scheme: str, has_scripts: bool = True) -> tuple[Page, list[str]]:
    """A page of a new session, and what its console complains of."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=has_scripts
    )
    page, complaints = context.new_page(), []
    page.on("console", lambda each: complaints.append(each.text) if each.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def log_in(page: Page) -> None:
    page.goto(f"{ROOT}/console")
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Ask, and see why")).to_be_visible()


def ask(page: Page) -> None:
    """Two answers and a thumb, without a mouse."""
    page.keyboard.type(TEXT)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("plain")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("sends that category to ruby")).to_be_visible()
    expect(page.get_by_role("link", name="receipt")).to_have_count(2)
    check(page)
    page.get_by_role("button", name="Good answer").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Noted: good answer")


def meet_refusal(page: Page) -> None:
    """A refusal of the API is said in the place of the form."""
    page.evaluate("document.querySelector('[name=decision_id]').value = 'nothing'")
    page.get_by_role("button", name="Bad answer").click()
    expect(page.get_by_role("alert")).to_contain_text("there is no decision 'nothing'")
    expect(page.get_by_role("heading", name="The route")).to_be_visible()


def follow(page: Page) -> None:
    """A decision that another page made appears by itself, and opens."""
    page.goto(f"{ROOT}/console/decisions")
    page.get_by_role("link", name="Follow live").click()
    rows = page.locator("#rows tbody tr")
    before = rows.count()
    page.request.post(f"{ROOT}/console/answer", form={"text": TEXT, "model": "auto"}, headers={"origin": ROOT})
    expect(rows).to_have_count(before + 1)
    page.get_by_role("link", name="Stop following").click()
    rows.first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="red → ruby")).to_be_visible()
    check(page)


def promote(page: Page) -> None:
    page.goto(f"{ROOT}/console/routers")
    page.once("dialog", lambda dialog: dialog.dismiss())
    row = page.get_by_role("row", name=ROUTER)
    row.get_by_role("button", name="Promote").click()
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Try on 5%").click()
    expect(page.get_by_role("heading", name="On trial")).to_be_visible()
    check(page)
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Promote").click()
    expect(row).to_contain_text("live")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back to").click()
    expect(row.get_by_role("button", name="Promote")).to_be_visible()


def without_scripts(browser: Browser) -> None:
    """Links and forms do the same."""
    page, _ = open_page(browser, 390, "light", has_scripts=False)
    log_in(page)
    page.get_by_label("Question").fill(TEXT)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name="Get the answer").click()
    page.get_by_role("button", name="Bad answer").click()
    expect(page.get_by_text("thumb: 0.00")).to_be_visible()


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, scheme in ((1400, "light"), (390, "dark"), (1400, "dark"), (390, "light")):
            page, complaints = open_page(browser, width, scheme)
            page.goto(f"{ROOT}/console/login")
            check(page)
            log_in(page)
            check(page)
            ask(page)
            meet_refusal(page)
            follow(page)
            for name in PAGES:
                page.goto(f"{ROOT}/console/{name}")
                check(page)
            promote(page)
            assert [each for each in complaints if "404" not in each] == [], complaints
            page.get_by_role("button", name="Log out").click()
            expect(page.get_by_label("Key")).to_be_visible()
            page.context.close()
        without_scripts(browser)
        browser.close()


main()
