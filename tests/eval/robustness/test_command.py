"""`coe eval robustness` on a real, small router: what it reads, prints, writes, and the status it ends with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from base.errors import DataError
from base.progress import silent
from coe import command_line as cli
from eval.robustness.flip_records import RobustnessReport
from eval.robustness.inputs import find_texts, own_texts
from fleet.router_registry import Registry
from tests.outcome_tables import scored_table
from training.datasets.outcomes import write_outcomes
from training.split import split_of
from training.table_fit import TableRequest, fit_table
from training.types import OutcomeTable

NOW = datetime(2026, 11, 25, tzinfo=UTC)
CATEGORIES = {"sums": "add the numbers {} and {} together", "poems": "write a rhyming poem about {} and {} at sea"}


def table(n: int = 30) -> OutcomeTable:
    """Sums, which `counter` can, and poems, which `poet` can."""
    asks = [(category, form.format(i, i + 7)) for i in range(n) for category, form in CATEGORIES.items()]
    categories, texts = zip(*asks, strict=True)
    scores = [[1.0, 0.0] if category == "sums" else [0.0, 1.0] for category in categories]
    splits = tuple("test" if i % 3 == 0 else "train" for i in range(len(asks)))
    return scored_table(scores, categories, ("counter", "poet"), texts=texts, splits=splits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`outcomes` and a live router in `routers`."""
    root = tmp_path_factory.mktemp("robustness")
    write_outcomes(table(), root / "outcomes")
    artifact = fit_table(
        root / "routers", TableRequest(root / "outcomes", "hashing", scorer="map"), now=NOW, progress=silent
    )
    Registry(root / "routers").promote(artifact.manifest.version, NOW)
    return root


def coe(folder: Path, *arguments: str) -> int:
    fixed = ["--router", str(folder / "routers"), "--table", *arguments]
    return cli.run("eval robustness", fixed)


def expectations(folder: Path, expert: str) -> str:
    file = folder / f"{expert}.test.yaml"
    file.write_text(f"cases:\n  - {{name: a sum, text: add the numbers 3 and 5 together, expert: {expert}}}\n")
    return str(file)


def test_the_gate_opens_and_shuts_by_the_share_that_flips(folder, capsys):
    arguments = ["--outcomes", str(folder / "outcomes"), "--families", "case,typos"]
    assert coe(folder, *arguments, "--max-flips", "1") == 0
    printed = capsys.readouterr()
    assert "typos" in printed.out
    assert "score" in printed.out
    assert "coe:" not in printed.err  # lines of progress only
    report = json.loads(shown(folder, capsys, *arguments))
    share = report["flips"]["overall"]["experts"]["value"]
    assert 0 < share < 1  # hashed words: a typo makes another word
    assert coe(folder, *arguments, "--max-flips", str(share - 0.001)) == 1
    assert f"decisions flip, more than the {share - 0.001:.1%} allowed; most under" in capsys.readouterr().err
    assert coe(folder, *arguments, "--max-flips", str(share)) == 0


def shown(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    coe(folder, *arguments, "--json")
    return capsys.readouterr().out


def test_json_is_the_whole_report_and_is_written_too(folder, tmp_path, capsys):
    arguments = ["--outcomes", str(folder / "outcomes"), "--families", "typos", "--out", str(tmp_path / "new")]
    report = RobustnessReport.model_validate_json(shown(folder, capsys, *arguments))
    assert report == RobustnessReport.model_validate_json((tmp_path / "new" / "robustness.json").read_bytes())
    assert report.flips.n_texts == 20  # the split `test`
    assert report.flips.overall.quality_change.value < 0
    assert list(report.flips.families) == ["typos"]
    assert shown(folder, capsys, *arguments, "--seed", "1") != shown(folder, capsys, *arguments)


def test_expectations_decide_the_status_alone(folder, capsys):
    assert coe(folder, "--tests", expectations(folder, "counter"), "--only-tests") == 0
    assert "1 of 1 cases hold (1 decisions)" in capsys.readouterr().out
    assert coe(folder, "--tests", expectations(folder, "poet"), "--only-tests") == 1
    found = capsys.readouterr()
    assert "0 of 1 cases hold" in found.out
    assert "cases.0.expert: 'a sum' expected expert 'poet', got expert 'counter'" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only-tests"], "--only-tests: it needs --tests FILE"),
        (["--queries", "a", "--outcomes", "b"], "give either --queries FILE or --outcomes DIR"),
        (["--queries", "none.jsonl"], "none.jsonl: cannot be read"),
        (["--families", "spelling"], "unknown family of perturbations 'spelling'"),
        (["--policy", "fast"], "unknown policy 'fast'"),
        (["--tests", "none.yaml", "--only-tests"], "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(folder, capsys, arguments, message):
    assert coe(folder, *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_router_that_is_not_there_is_named(folder, tmp_path, capsys):
    arguments = ["--config", "experts.yaml", "--data-dir", str(tmp_path)]
    assert cli.run("eval robustness", arguments) == 1
    assert "there is no live router yet" in capsys.readouterr().err
    (tmp_path / "live.json").write_text("[]")
    assert cli.run("eval robustness", ["--router", str(tmp_path)]) == 1
    assert "live.json: is not a live pointer" in capsys.readouterr().err


def test_queries_need_a_text_and_no_category(folder, tmp_path, capsys):
    file = tmp_path / "queries.jsonl"
    file.write_text('{"text": "add the numbers 1 and 2 together"}\n{"text": "write a rhyming poem"}\n')
    assert find_texts(file, None).texts == ("add the numbers 1 and 2 together", "write a rhyming poem")
    report = json.loads(shown(folder, capsys, "--queries", str(file), "--limit", "1"))
    assert report["flips"]["n_texts"] == 1
    file.write_text('{"txt": "add"}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl: row 1: unknown key 'txt'; did you mean 'text'"):
        find_texts(file, None)


def test_our_own_texts_are_none_that_a_router_is_fitted_on():
    texts = own_texts().texts
    assert len(texts) > 600
    assert sum(split_of(text) == "test" for text in texts) > 500
    assert len(set(texts)) == len(texts)
