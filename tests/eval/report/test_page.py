"""The kit of reports: whatever a block holds, the page stays whole and shows it as text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.report import charts
from eval.report.page import (
    Cell,
    Chart,
    Columns,
    Command,
    Facts,
    Figure,
    Fold,
    Heading,
    Note,
    Page,
    Quotes,
    Row,
    Section,
    Table,
    render,
    table_of,
)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>alert('`x`')</script><img src=x onerror=y>"


def page_of(text: str) -> Page:
    """A page that shows the same text in every place there is."""
    rows = [{"name": text, "group": text, "score": 1.0, "low": 0.5, "high": 1.5, "text": text}]
    spec = charts.dot_rows(rows, text, {text: charts.Look(charts.ACCENT)})
    table = Table([text, text], [Row(text, [Cell(text, text, "good")], text, is_own=True)], text, texts=[text])
    blocks = [
        text,
        Note(text),
        Heading(text),
        Command(text),
        Facts([(text, text)]),
        Quotes([(text, text)]),
        table,
        None,
    ]
    chart = Chart("chart-one", spec, text)
    section = Section("one", text, [*blocks, chart, Fold(text, [text])])
    return Page(text, text, text, [Figure(text, text, text)], [section], {"chart-one": text})


def test_a_hostile_text_is_shown_and_not_run() -> None:
    drawn = render(page_of(HOSTILE))
    assert drawn.count("<script") == 3
    assert "<img src=x" not in drawn
    specs = re.search(r'id="specs">(.*?)</script>', drawn, re.S)
    assert json.loads(specs[1])["chart-one"] == page_of(HOSTILE).charts["chart-one"].spec


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="`"), min_size=1))
def test_every_text_is_shown_as_it_is(text: str) -> None:
    drawn = re.sub(r"<script.*?</script>", "", render(page_of(text)), flags=re.S)
    assert html.unescape(drawn).count(text) >= 20


def test_words_between_backticks_are_code_and_a_chart_shown_first_is_linked() -> None:
    drawn = render(page_of("run `coe up` now"))
    assert "<p>run <code>coe up</code> now</p>" in drawn
    assert drawn.count('id="chart-one"') == 1
    assert 'The chart is <a href="#chart-one">above</a>.' in drawn


def test_a_table_is_made_of_its_columns() -> None:
    columns: Columns[int] = {"Twice": lambda _, n: str(2 * n), "Name": lambda name, _: name.upper()}
    made = table_of("Item", {"a": 1, "b": 2}, columns, label=lambda name, n: f"{name}{n}", own="b")
    assert made.columns == ["Item", "Twice", "Name"]
    assert [(row.name, list(row.cells), row.is_own) for row in made.rows] == [
        ("a1", ["2", "A"], False),
        ("b2", ["4", "B"], True),
    ]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_click_on_a_heading_sorts_by_the_figure_below_it(tmp_path: Path) -> None:
    waits = {"a": "900 ms", "b": "", "c": "12.0 s", "d": "1,100 ms", "e": "2.0 min"}
    signed = {"a": "\u22123.7", "b": "+4.2", "c": "$10.1", "d": "0.0", "e": "unknown"}
    rows = [Row(name, [waits[name], Cell(signed[name], "\u22129.0 to +9.0", "good")]) for name in waits]
    spec = charts.dot_rows([{"name": "a", "group": "", "score": 1.0, "low": 0.5, "high": 1.5, "text": "1"}], "score")
    table = Table(["Name", "Waits", "Gain"], rows)
    made = Page("", "", "", [], [Section("one", "One", [table, Chart("chart", spec, "one dot")])], {})
    click = """<script>
      const order = () => [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent).join("");
      const buttons = document.querySelectorAll("thead button");
      document.title = [1, 1, 2, 0].map((i) => (buttons[i].click(), order())).join(" ");
    </script>"""
    (tmp_path / "page.html").write_text(render(made) + click, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path}/profile"]
    line = [str(CHROMIUM), *options, "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>ecdab adceb cbdae abcde</title>" in shown
    assert re.search(r'<div class="chart[^>]*role="img" aria-label="one dot">.*?<svg', shown, re.S)
