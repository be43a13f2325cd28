"""Reports in Chromium, by keyboard: every page at two widths, light and dark, with axe.

Arguments: path of Chromium, then the files. With SHOTS=FOLDER in the environment pictures of the pages are kept there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM, *FILES = sys.argv[1:]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"
SHOTS = os.environ.get("SHOTS")
SMALLEST_LETTERS_PX = 11
CUT = """[...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const [left, right] = [0, document.documentElement.clientWidth];
  const scrolls = svg.closest(".chart").scrollWidth > svg.closest(".chart").clientWidth;
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return text.textContent.trim() && box.width && !scrolls && (box.left < left || box.right > right);
  }).map((text) => text.textContent);
})"""
LETTERS = """Math.min(...[...document.querySelectorAll("figure svg text")].filter((text) => text.textContent.trim()
  && text.checkVisibility()).map((text) => parseFloat(getComputedStyle(text).fontSize)
    * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))"""

expect.set_options(timeout=100_000)  # ms, as tests.waiting has: the machine may be busy


def check(page: Page, where: str) -> None:
    """The page is as wide as the window, nothing of a chart is cut, letters can be read, and axe finds nothing."""
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window, f"{where} scrolls sideways: {width} > {window}"
    assert page.evaluate(CUT) == [], f"{where}: texts of charts are cut: {page.evaluate(CUT)}"
    assert page.locator("figure svg").count() == 0 or page.evaluate(LETTERS) >= SMALLEST_LETTERS_PX, (
        f"{where}: letters of {page.evaluate(LETTERS)} px"
    )
    page.evaluate(AXE)
    found = page.evaluate(f"axe.run({RULES})")
    assert len(found["passes"]) > 10, where
    assert not found["violations"], (
        f"{where}: {[(each['id'], each['nodes'][0]['html']) for each in found['violations']]}"
    )


def keep(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def hover(page: Page) -> None:
    """The pointer over a dot shows its values."""
    dots = page.locator("figure svg .mark-symbol path:visible, figure svg .mark-rect path:visible")
    if dots.count():
        dots.first.hover()
        expect(page.locator("#vg-tooltip-element.visible")).to_be_visible()


def read_by_keyboard(page: Page) -> None:
    """A link of the contents leads to its section, and Enter on a heading sorts."""
    page.locator("nav a").last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("main section").last).to_be_in_viewport()
    heads = page.locator("thead button:visible")
    if heads.count():
        heads.first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("thead th[aria-sort]")).to_have_count(1)


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for file in FILES:
            for width, scheme in ((1400, "light"), (390, "dark"), (1400, "dark"), (390, "light")):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page, complaints = context.new_page(), []
                page.on("pageerror", lambda error, found=complaints: found.append(str(error)))
                page.goto(Path(file).as_uri())
                name = f"{Path(file).parent.name}-{width}-{scheme}"
                check(page, name)
                keep(page, f"{name}-first")
                hover(page)
                read_by_keyboard(page)
                check(page, f"{name}, open")
                keep(page, name)
                assert complaints == [], complaints
                context.close()
        browser.close()


main()
