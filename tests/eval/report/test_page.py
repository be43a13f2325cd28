"""The kit of reports: whatever a page holds, it stays whole and shows it as text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.eval.metrics.intervals import Rate
from coe.eval.report import drawing
from coe.eval.report.numbers import percent, points
from coe.eval.report.page import (
    Cell,
    Chart,
    Column,
    Figure,
    InTable,
    Page,
    Row,
    Section,
    Table,
    cite,
    facts_of,
    record_table,
    render,
    table_of,
)
from coe.router.types import Record
from tests.eval.drawn import charts_of_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>alert('`x`')</script><img src=x onerror=y>"
GAP = Rate(value=0.042, low=0.01, high=0.074, n=40)


def page_of(text: str) -> Page:
    """A page that shows the same text in every place there is."""
    table = Table([text, text], [Row(text, text, [Cell(text, text, "good")], is_own=True)], frozenset([text]))
    chart = Chart(text, drawing.dots({text: GAP}, text, ".1f", {text: text}))
    sections = [Section(text, text, table, chart, text), Section("facts", table=facts_of({text: text}))]
    return Page(text, text, text, [Figure(text, Cell(text, text))], chart, sections, warnings=[text])


def test_a_hostile_text_is_shown_and_not_run() -> None:
    drawn = render(page_of(HOSTILE))
    assert drawn.count("<script") == 3
    assert "<img src=x" not in drawn
    specs = re.search(r'id="specs">(.*?)</script>', drawn, re.S)
    assert json.loads(specs[1])["picture"] == page_of(HOSTILE).picture.spec


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_every_text_is_shown_as_it_is(text: str) -> None:
    drawn = re.sub(r"<script.*?</script>", "", render(page_of(text)), flags=re.S)
    assert html.unescape(drawn).count(text) >= 22


def test_a_table_is_made_of_its_columns() -> None:
    columns: list[Column[int]] = [
        Column("Count", lambda n: 1000 * n),
        Column("Known", lambda n: GAP if n > 1 else None, points, is_difference=True),
        Column("Word", lambda n: "x" * n),
        Column("Nothing", lambda _: None),
    ]
    made = table_of("Item", [("a", 1), ("a", 2)], columns, own="b", how=lambda n: f"how {n}")
    assert made.columns == ["Item", "Count", "Known", "Word"]
    assert made.texts == {"Word"}
    assert [(row.name, row.how, row.is_own) for row in made.rows] == [("a", "how 1", False), ("a", "how 2", False)]
    assert made.rows[0].cells == [Cell("1,000"), Cell(""), Cell("x")]
    assert made.rows[1].cells[1] == Cell("+4.2", "+1.0 to +7.4", "good")
    assert [row.is_own for row in table_of("Item", {"a": 1, "b": 2}, columns, own="b").rows] == [False, True]


def test_a_figure_is_stated_with_its_interval() -> None:
    assert cite(GAP, points, " points") == "+4.2 points (+1.0 to +7.4)"


def test_charts_keep_to_the_schema() -> None:
    rows = [{"x": 60_000 * i, "y": 0.5, "low": 0.4, "high": 0.6, "group": g} for i in range(3) for g in "ab"]
    charts = [
        drawing.lines(rows, (None, "mean"), ".0%", x=drawing.TIME_AXIS, moments={"v2": 60_000.0}),
        drawing.heat_map({("a", "b"): -0.5, ("a", "c"): 0.2}, ("row", "column"), "+.1f"),
    ]
    sections = [Section(str(i), chart=Chart("", spec)) for i, spec in enumerate(charts)]
    found = charts_of_page(render(Page("", "", "", [], None, sections)))
    assert [row["depth"] for row in found["chart-1"]["data"]["values"]] == [0.5, 0.2]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_click_on_a_heading_sorts_by_the_figure_below_it(tmp_path: Path) -> None:
    waits = {"a": "900 ms", "b": "", "c": "12.0 s", "d": "1,100 ms", "e": "2.0 min"}
    signed = {"a": "\u22123.7", "b": "+4.2", "c": "$10.1", "d": "0.0", "e": "unknown"}
    rows = [Row(name, "", [Cell(waits[name]), Cell(signed[name], "\u22129.0 to +9.0", "good")]) for name in waits]
    chart = Chart("one dot", drawing.dots({"a": GAP}, "score", ".1f", {"a": ""}))
    section = Section("One", table=Table(["Name", "Waits", "Gain"], rows), chart=chart)
    click = """<script>
      const order = () => [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent).join("");
      const buttons = document.querySelectorAll("thead button");
      document.title = [1, 1, 2, 0].map((i) => (buttons[i].click(), order())).join(" ");
    </script>"""
    (tmp_path / "page.html").write_text(render(Page("", "", "", [], None, [section])) + click, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path}/profile"]
    line = [str(CHROMIUM), *options, "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>ecdab adceb cbdae abcde</title>" in shown
    assert re.search(r'<div class="chart[^>]*role="img" aria-label="one dot">.*?<svg', shown, re.S)


class Fruit(Record):
    name: str
    n: Annotated[int, InTable("Pieces")]
    weight_g: float
    ripe: Annotated[float | None, InTable("Ripe", percent)] = None
    unknown: str = ""


def test_a_records_annotated_fields_are_the_columns_of_its_table() -> None:
    plum, pear = (
        Fruit(name="plum", n=1200, weight_g=30, ripe=0.5),
        Fruit(name="pear", n=3, weight_g=90, unknown="green"),
    )
    made = record_table("Fruit", (plum, pear), Column("In all, g", lambda one: one.n * one.weight_g, "{:,.0f}".format))
    assert made.columns == ["Fruit", "Pieces", "Ripe", "In all, g"]
    assert [[cell.text for cell in row.cells] for row in made.rows] == [["1,200", "50.0%", "36,000"], ["3", "", "270"]]
    assert [(row.name, row.how) for row in made.rows] == [("plum", ""), ("pear", "green")]
    assert [row.name for row in record_table("Fruit", {"a plum": plum}).rows] == ["a plum"]


def test_a_section_without_content_is_not_on_the_page() -> None:
    sections = [Section("Full", "Said."), Section("Section without rows", table=record_table("Fruit", ()))]
    page = Page("kind", "title", "lead", figures=[], picture=None, sections=sections)
    assert [section.title for section in page.shown] == ["Full"]
    assert "Section without rows" not in render(page)
