"""The traffic report on logs whose truth is known, and on logs that hold nearly nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import DataError
from coe.cli.command_line import run
from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.eval.log.feedback_report import FeedbackReport
from coe.eval.log.measure_log import bucket_seconds, measure_log
from coe.eval.log.traffic import gather, read_traffic
from coe.eval.log.traffic_page import traffic_page
from coe.eval.log.traffic_records import LogReport
from coe.eval.metrics.intervals import Rate, rate
from coe.eval.report import page
from coe.router.types import DecisionReason, Metric
from tests.eval.drawn import charts_of_page
from tests.eval.log.traffic_log import OLD, START, decision_of, record_of, traffic, write_log
from tests.training.trained_folder import make_trained

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def report_on(n: int, **options: float) -> LogReport:
    """A report where every answer is rated."""
    pairs = list(traffic(n, **options))
    rewards = {record.decision_id: reward for record, reward in pairs}
    return measure_log(gather((record for record, _ in pairs), rewards), command="coe eval log", now=NOW)


@pytest.fixture(scope="module")
def report() -> LogReport:
    return report_on(4000)


def test_volume_cost_and_latency_add_up(report: LogReport) -> None:
    assert sum(group.n for group in report.categories) == sum(group.n for group in report.experts) == 4000
    assert sum(cell.n for cell in report.cells) == 4000
    assert sum(sum(bucket.by_expert.values()) for bucket in report.timeline) == 4000
    by_name = {group.name: group for group in report.experts}
    assert by_name["writer"].cost_usd == pytest.approx(0.002 * by_name["writer"].n)
    assert report.totals.p50_ms == pytest.approx(124.5)
    assert by_name["coder"].p95_ms == pytest.approx(147, abs=1)


def test_qualities_hold_the_truth(report: LogReport) -> None:
    truth = {("code", "coder"): 0.9, ("code", "writer"): 0.4, ("prose", "coder"): 0.5, ("prose", "writer"): 0.8}
    for cell in report.cells:
        assert cell.quality.low <= truth[cell.category, cell.expert] <= cell.quality.high


def test_the_headline_draws_no_verdict_from_a_wide_interval(report: LogReport) -> None:
    assert traffic_page(report_on(27)).title.startswith("Too little feedback to tell: answers are worth ")
    assert traffic_page(report).title.startswith("Answers are worth ")


def test_feedback_of_the_dissatisfied_is_corrected_by_cell(tmp_path: Path) -> None:
    """Each cell's own mean stays biased; what is corrected is that cells answer at different rates."""
    found = read_traffic(write_log(tmp_path / "coe.db", 1200, rate_of=(0.6, 0.2)))
    measured = measure_log(found, command="c", now=NOW)
    bias = measured.bias
    assert bias.corrected.value > bias.raw.value  # cells of good answers had the fewest raters


def test_nothing_of_a_text_is_in_the_report(tmp_path: Path) -> None:
    found = measure_log(read_traffic(write_log(tmp_path / "coe.db", 60)), command="c", now=NOW)
    assert "secret text" not in found.model_dump_json() + page.render(traffic_page(found))


def test_the_page_loads_nothing_and_is_whole(report: LogReport, tmp_path: Path) -> None:
    written = page.write_report(report, traffic_page(report), tmp_path / "out")
    assert LogReport.model_validate_json(written[0].read_bytes()) == report
    html = re.sub(r"<script>.*?</script>", "", written[1].read_text(), flags=re.S)
    assert not re.search(r"https?://", html)
    charts = charts_of_page(html)
    assert all(f'id="{name}"' in html for name in charts)
    assert {"picture", "chart-who-served-what", "chart-experts"} <= set(charts)
    served = charts["chart-who-served-what"]["data"]["values"]
    assert sum(row["y"] for row in served) == 4000


@pytest.mark.parametrize(
    "records",
    [
        [record_of(0, None, state=TerminalState.REJECTED, status=429)],
        [record_of(0, decision_of("code", "coder", 1.0, OLD, reason=DecisionReason.EXPLICIT))],
        [record_of(0, decision_of("code", "coder", 1.0, OLD), state=TerminalState.TIMED_OUT, ttft_ms=None)],
        [record_of(i, decision_of("general", "coder", 1.0, OLD, is_fallback=True)) for i in range(2)],
    ],
)
def test_a_tiny_log_gives_a_page(records) -> None:
    found = measure_log(gather(records, {}), command="c", now=NOW)
    assert "No answer has feedback" in found.headline
    assert "Only 0 answers have feedback" in found.warnings[0]
    assert "<h1>" in page.render(traffic_page(found))


def test_probes_and_malformed_requests_are_counted_beside_the_traffic(tmp_path: Path) -> None:
    """Sixteen requests of users, a probe that names its expert and one that is routed, three that nobody can serve."""
    map_decision = decision_of("code", "coder", 1.0, OLD)
    named = decision_of("code", "writer", 1.0, OLD, reason=DecisionReason.EXPLICIT)
    refused = {"state": TerminalState.REJECTED, "error_code": "model_not_found"}
    records = [
        *(record_of(i, map_decision) for i in range(14)),
        record_of(14, None, state=TerminalState.REJECTED, status=503),
        record_of(15, None, state=TerminalState.REJECTED, status=429),
        record_of(16, named, is_probe=True),
        record_of(17, map_decision, is_probe=True, state=TerminalState.UPSTREAM_ERROR, status=502),
        *(record_of(18 + i, None, status=400 + i, **refused) for i in (0, 4, 22)),
        record_of(50, None, state=TerminalState.REJECTED, status=429, error_code="insufficient_quota"),
    ]
    found = measure_log(gather(records, {}), command="c", now=NOW)
    assert found.totals.n == 16
    assert sorted(found.totals.left_out.values()) == [1, 2, 3]
    assert [group.name for group in found.experts] == ["coder"]
    assert found.totals.by_state == {"answered": 14, "rejected": 2}
    assert "16 decisions from" in found.headline
    beside = "2 probes by coe itself, 3 malformed requests, 1 requests over a cap of their key"
    assert f"Not counted: {beside}." in found.headline
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    store.write_decisions(records[16:])
    store.close()
    with pytest.raises(DataError, match="2 probes by coe itself, and 3 malformed requests"):
        read_traffic(f"sqlite:///{tmp_path / 'coe.db'}")


def test_since_and_until_cut_the_log(tmp_path: Path) -> None:
    url = write_log(tmp_path / "coe.db", 100)
    found = read_traffic(url, since=START + 60 * 10, until=START + 60 * 20)
    assert found.at.tolist() == [START + 60 * n for n in range(10, 20)]
    with pytest.raises(DataError, match="no decision of that time"):
        read_traffic(url, since=START + 1e6)


def test_the_report_says_who_agrees_with_feedback(report: LogReport) -> None:
    """Two keys, a signal that agrees, one that nobody showed, and a judge."""
    worse = Metric.within(0.2, 0.4, 0.6, 100)
    signal = {"with_feedback": 40, "mean_with": 0.1, "mean_without": 0.5, "difference": worse, "verdict": "agrees"}
    unseen = {**signal, "with_feedback": 0, "difference": None, "verdict": "needs 20 answers"}
    judged = {
        "grades": 134,
        "mean_grade": 0.5,
        "with_feedback": 101,
        "correlation": worse,
        "pairs": 70,
        "consistent": 61,
    }
    said = FeedbackReport.model_validate(
        {
            "kinds": [{"name": "thumb", "pieces": 3, "share": 1.0, "mean": 0.5}],
            "keys": [{"name": name, "pieces": 2, "share": 0.5, "mean": 0.5, "weight": 0.25} for name in ("one", "two")],
            "signals": [{"kind": "cut_off", "answers": 80, **signal}, {"kind": "aborted", "answers": 0, **unseen}],
            "judges": [{"judge": "wise", "rubric": "r1", "correlation": worse, **judged}],
        }
    )
    tables = {
        section.title: section.table
        for section in traffic_page(report.model_copy(update={"feedback": said})).sections
        if section.table is not None
    }
    assert [row.name for row in tables["Kinds of feedback"].rows] == ["thumb"]
    assert [row.cells[-1].text for row in tables["Keys that gave feedback"].rows] == ["0.25", "0.25"]
    ((signal_row,), (judge_row,)) = (tables[title].rows for title in ("Signals of clients", "Judges"))
    assert (signal_row.name, signal_row.cells[-1].text, signal_row.cells[-2].interval) == (
        "cut_off",
        "agrees",
        "+20.0 to +60.0",
    )
    assert (judge_row.name, judge_row.cells[-1].text) == ("wise, rubric r1", "61")


def test_the_report_says_what_each_expert_is_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_trained(tmp_path)
    write_log(folder / "data" / "coe.db", 60)
    arguments = ["--out", str(tmp_path / "out"), "--data-dir", str(folder / "data")]
    assert run("eval log", [*arguments, "--config", str(folder / "experts.yaml")]) == 0
    assert "Nobody would miss right" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["worth"]["dispensable"] == ["right"]
    assert [kind["name"] for kind in found["feedback"]["kinds"]] == ["thumb"]
    assert "Which expert earns its keep" in (tmp_path / "out" / "report.html").read_text()
    assert run("eval log", [*arguments, "--config", str(tmp_path / "none.yaml")]) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["worth"] is None
    assert "none.yaml" in found["worth_unknown"]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    assert run("eval log", arguments) == 1
    assert capsys.readouterr().err.endswith("begins with the first `coe up` or `coe serve`\n")
    Database(f"sqlite:///{tmp_path / 'coe.db'}").close()
    assert run("eval log", arguments) == 1
    assert "nothing to report on yet" in capsys.readouterr().err
    assert run("eval log", [*arguments, "--since", "soon"]) == 1
    assert "--since: 'soon' is not an ISO date" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    write_log(tmp_path / "coe.db", 60)
    assert run("eval log", arguments) == 0
    assert "60 decisions from" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert run("eval log", ["--out", str(tmp_path / "file"), "--data-dir", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.json"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_intervals_hold_their_value(values) -> None:
    found = rate(np.array(values))
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12


def test_buckets() -> None:
    assert bucket_seconds(0.0) == 60.0
    assert bucket_seconds(86400.0) == 3600.0


def width(found: Rate | None) -> float:
    return found.high - found.low


def test_answers_to_one_question_or_of_one_key_are_not_independent() -> None:
    """Forty questions asked ten times each with the same result: as wide as forty. One key says nothing of a spread."""
    once = np.random.default_rng(0).random(40).round()
    repeated, question = np.repeat(once, 10), np.repeat(np.arange(40), 10)
    alone = np.arange(400)
    one_key = np.zeros(400, dtype=np.int64)
    clustered = rate(repeated, clusters=(question, one_key))
    assert clustered.n == pytest.approx(40, rel=0.05)
    assert width(clustered) == pytest.approx(width(rate(once)), rel=0.05)
    assert width(rate(repeated, clusters=(alone, question))) == pytest.approx(width(clustered))
    assert width(rate(repeated, clusters=(alone, one_key))) == pytest.approx(width(rate(repeated)), rel=0.05)
    same = rate(np.ones(400), clusters=(question, one_key))
    assert same.n == pytest.approx(40)


def test_intervals_of_clustered_answers_hold_the_truth() -> None:
    """Twenty keys, each with a mean of its own about 0.6: the plain interval holds it far too seldom."""
    rng, runs, held = np.random.default_rng(1), 200, [0, 0]
    for _ in range(runs):
        key = np.repeat(np.arange(20), 30)
        value = (rng.random(600) < np.clip(rng.normal(0.6, 0.25, 20), 0, 1)[key]).astype(float)
        truth = 0.6 - 0.0131  # what clipping takes off the mean of the keys
        for place, found in enumerate((rate(value), rate(value, clusters=(np.arange(600), key)))):
            held[place] += found.low <= truth <= found.high
    assert held[0] / runs < 0.8
    assert held[1] / runs > 0.88


def test_the_report_knows_questions_and_keys() -> None:
    """The same traffic as questions and keys of its own, as two questions, and as questions of two keys."""
    pairs = list(traffic(600))
    rewards = {record.decision_id: reward for record, reward in pairs}

    def coder(**changes: Callable[[int], str]) -> Rate | None:
        rows = [r.model_copy(update={k: of(i) for k, of in changes.items()}) for i, (r, _) in enumerate(pairs)]
        report = measure_log(gather(rows, rewards), command="c", now=NOW)
        return next(group.quality for group in report.experts if group.name == "coder")

    apart = coder(text=lambda i: f"question {i}", key_id=lambda i: f"key {i}")
    few = coder(text=lambda i: f"question {int(rewards[f'dec-{i:06}'])}", key_id=lambda i: f"key {i}")
    keys = coder(text=lambda i: f"question {i}", key_id=lambda i: f"key {int(rewards[f'dec-{i:06}'])}")
    assert width(few) > 2 * width(apart)
    assert width(keys) > 2 * width(apart)
