"""Every kind of report in a real browser: scripts/reports.py has the steps. Skipped where Chromium is not installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.retrieval_eval.page import retrieval_page
from coe.eval.log.savings import SavedGroup, Savings, savings_page
from coe.eval.log.traffic_page import traffic_page
from coe.eval.report.page import render
from coe.eval.routing.routing_page import routing_page
from coe.router.types import Interval, Metric
from tests.benchmarks.retrieval_eval.test_command import evaluate
from tests.clients.test_clients import CLIENTS, SCRIPTS
from tests.clients.test_console import CHROMIUM
from tests.eval.log.test_log_report import report_on
from tests.eval.routing.test_routing_page import full_report, make_report
from tests.retrieval.training.collection_files import write_beir


def savings() -> Savings:
    saved, gained = (Metric(value=v, interval=Interval(low=0.5 * v, high=2 * v)) for v in (1.5, 0.02))
    groups = [
        SavedGroup(
            name=name,
            n=40,
            n_priced=40,
            cost_usd=2.0,
            routed_usd=0.5,
            saved_usd=saved,
            n_predicted=40,
            gained=gained,
            goes_to={"small": 0.75, "a model with a long name of many letters": 0.25},
        )
        for name in ("code", "facts", "writing")
    ]
    return Savings(
        headline="Routing would have saved something.",
        warnings=("Estimated: nothing was answered again.",),
        command="coe eval log --import litellm spend.jsonl",
        created_at="2026-01-01T00:00:00+00:00",
        router="0123456789abcdef",
        total=groups[0],
        categories=tuple(groups),
        models=tuple(groups),
        left_out={},
    )


def pages(folder: Path) -> dict[str, str]:
    """A page of every kind, by name."""
    write_beir(folder / "collections" / "north", "n")
    write_beir(folder / "collections" / "south", "s")
    return {
        "routing": render(routing_page(full_report())),
        "routing-few": render(routing_page(make_report())),
        "traffic": render(traffic_page(report_on(1000))),
        "savings": render(savings_page(savings())),
        "retrieval": render(retrieval_page(evaluate(folder / "collections", folder / "out"))),
    }


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_reports_can_be_read_in_a_browser(tmp_path: Path) -> None:
    assert CLIENTS.exists(), f"{CLIENTS} is missing: `make environments` installs it"
    files = []
    for name, page in pages(tmp_path).items():
        files.append(tmp_path / name / "report.html")
        files[-1].parent.mkdir()
        files[-1].write_text(page, encoding="utf-8")
    line = [str(CLIENTS), str(SCRIPTS / "reports.py"), str(CHROMIUM), *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
