"""`coe certify` from experts.yaml and grades to a signed certificate, and whether it holds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.errors import ConfigError, DataError
from coe.cli.command_line import run as run_cli
from coe.cli.progress import silent
from coe.decision_log.privacy import load_key
from coe.eval.certify.certificate_page import certificate_page
from coe.eval.certify.certify import Claim
from coe.eval.certify.prompts import DRAWS_FILE
from coe.eval.certify.run import Places, run_certify
from coe.eval.probe_set import load_probe_file
from coe.eval.report.page import render
from coe.fleet.certificate import CERTIFICATE_FILE, Certificate, Standing, read_standing
from coe.fleet.router_registry import Registry
from coe.router.build import live_router
from coe.router.config.composition import load_config
from coe.training.datasets.outcome_rows import write_outcomes
from tests.eval.certify.certified_folder import (
    EXPERTS,
    SAVER,
    certified_folder,
    configuration,
    grades,
    names,
    text_of,
    write_probes,
)

MADE = datetime(2026, 6, 1, tzinfo=UTC)
WORSE = {"small": 0.4, "other": 0.4, "strong": 0.9}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    folder = certified_folder(tmp_path)
    return Places(folder / "experts.yaml", folder / "data", folder / "out", None, tmp_path / "cache")


def run(places: Places, batch: int = 100, policy: str = "saver") -> tuple[Certificate, int]:
    return run_certify(places, Claim(policy, 0.01, MADE, valid_days=90), None, batch, silent)


def standing(places: Places, now: datetime = MADE, replaced: tuple[str, ...] = ()) -> Standing:
    config = load_config(places.config)
    router = live_router(config, places.data_dir)
    found = read_standing(
        places.data_dir, load_key(places.data_dir), config, places.config.parent, router, replaced, now
    )
    assert found is not None
    return found


def grade(places: Places, prompts: list[str], right: dict[str, float] | None = None) -> None:
    write_outcomes(grades(prompts) if right is None else grades(prompts, right), places.out / "grades")


def certified(places: Places) -> Certificate:
    grade(places, names(100, 250))
    made, _ = run(places)
    assert made.shown
    return made


def test_prompts_are_drawn_graded_and_tested_until_a_plan_is_shown(places: Places) -> None:
    probes = write_probes(places.out.parent / "probes.jsonl", names(100, 400))
    places, done, rounds = replace(places, prompts=probes), list[str](), 0
    made, n_next = run(places, batch=60)
    assert made.statement.startswith("Nothing is certified: no grade shows yet whether policy saver is at most 1 point")
    while not made.shown:
        rounds += 1
        assert rounds < 9
        chosen = load_probe_file(places.out / "next.jsonl")
        assert len(chosen) == n_next == 60
        assert run(places, batch=60)[1] == 60  # the same ones, until they are graded
        done += [probe.id for probe in chosen]
        grade(places, done)
        made, n_next = run(places, batch=60)
    assert len(set(done)) == len(done) == made.n_graded
    assert made.is_signed(load_key(places.data_dir))
    assert "Policy saver is at most 1 point worse than strong, with 95% confidence, and saves " in made.statement
    saved = made.shown[-1].saving
    assert 0.5 < saved.interval.low < saved.value < saved.interval.high < 0.95
    assert set(made.experts) <= set(EXPERTS)
    lines = [json.loads(line) for line in (places.out / DRAWS_FILE).read_text().splitlines()]
    assert {line["is_drawn"] for line in lines if "is_drawn" in line} <= {False}
    with pytest.raises(DataError, match=r"--prompts: .* taken up are not there any more"):
        run(replace(places, prompts=write_probes(probes, names(100, 101))))


def test_grades_that_the_router_learned_from_count_for_nothing(places: Places) -> None:
    grade(places, names(0, 100))
    made, _ = run(places)
    assert (made.n_graded, made.shown) == (0, ())
    grade(places, names(50, 150))
    assert run(places)[0].n_graded == 100


def test_a_plan_that_is_worse_is_told_to_be_uncertifiable(places: Places) -> None:
    grade(places, names(100, 300), WORSE)
    made, _ = run(places)
    assert not made.shown
    assert "Nothing is certified for policy saver: its safest plan measures −" in made.statement
    assert made.facts["Guaranteed"] == "Nothing"
    assert made.facts["Still missing"].startswith("Nothing helps the next plan")
    assert made.needed is None
    page = render(certificate_page(made))
    assert "Nothing is certified" in page
    assert 'class="good"' not in page.split("<nav")[0]
    assert standing(places).state == "nothing certified"


def test_what_is_missing_is_told_in_prompts_and_grades(places: Places) -> None:
    grade(places, names(100, 125))
    made, _ = run(places)
    assert made.needed
    assert made.facts["Still missing"].startswith(f"About {made.needed:,} more prompts, ")
    assert made.statement.endswith("(50 prompts, 50 graded).")


def test_the_page_says_what_is_guaranteed_until_when_and_on_what_it_rests(places: Places) -> None:
    made = certified(places)
    page = certificate_page(made)
    assert page.title == "At most 1 point below strong"
    assert [one.name for one in page.figures] == ["Guaranteed", "Saved", "Valid until", "Graded"]
    assert made.until.startswith("2026-08-30")
    for words in ("What", "Guaranteed", "Saved", "Measured", "Valid until", "Asks", "Rests on", "Still missing"):
        assert made.facts[words]
    assert f"data {made.data}" in made.facts["Rests on"]
    assert "At most 5% of such certificates are wrong" in render(page)


def write_config(places: Places, saver: dict[str, object] | None = None, **experts: object) -> None:
    values = configuration(saver)
    values["experts"] |= experts
    places.config.write_text(yaml.dump(values))


def in_force(places: Places) -> Certificate:
    """A certificate whose plan is served."""
    made = certified(places)
    write_config(places, SAVER | {"quality_floor": {"within": made.shown[-1].floor, "of": "strong"}})
    return made


def test_a_certificate_holds_once_its_plan_is_served_and_until_its_end(places: Places) -> None:
    made = certified(places)
    if made.shown[-1].floor < 0.01:
        assert standing(places).state == "another plan"
    in_force(places)
    assert standing(places) == Standing(made, "valid")
    assert standing(places, MADE + timedelta(days=91)).state == "expired"
    assert standing(places).state == "valid"


def test_what_was_edited_is_not_believed(places: Places) -> None:
    in_force(places)
    path = places.data_dir / CERTIFICATE_FILE
    path.write_text(path.read_text().replace('"within": 0.01', '"within": 0.001'))
    assert standing(places).state == "forged"
    path.write_text("{}")
    config = load_config(places.config)
    assert read_standing(places.data_dir, b"", config, places.config.parent, None) is None


def test_another_model_withdraws_it_for_good(places: Places) -> None:
    made = in_force(places)
    saver = SAVER | {"quality_floor": {"within": made.shown[-1].floor, "of": "strong"}}
    write_config(places, saver, small={"engine": "echo", "model": "newer", "price": {"input": 0.1, "output": 0.1}})
    assert standing(places)[1:] == ("changed", "expert small is not the one that was graded")
    write_config(places, saver)
    assert standing(places).state == "changed"
    run(places)  # a new certificate, on the same grades
    assert standing(places).state == "valid"
    assert standing(places, replaced=("strong",)).state == "changed"


def test_drift_that_retraining_found_withdraws_it(places: Places) -> None:
    in_force(places)
    registry = Registry(places.data_dir / "routers")
    change = {"expert": "small", "category": "sql", "before": 0.9, "after": 0.5, "model": ""}
    registry.keep_round(MADE, {"quality_changes": [change | {"at": (MADE - timedelta(days=9)).timestamp()}]})
    assert standing(places).state == "valid"  # it was there before anything was graded
    registry.keep_round(MADE, {"quality_changes": [change | {"at": (MADE + timedelta(days=9)).timestamp()}]})
    assert standing(places)[1:] == ("drifted", "`coe retrain` found that expert small changed on sql")


def test_another_router_is_another_plan(places: Places) -> None:
    in_force(places)
    config = load_config(places.config)
    router = replace(live_router(config, places.data_dir), version="newer")
    arguments = (places.data_dir, load_key(places.data_dir), config, places.config.parent)
    assert read_standing(*arguments, router, now=MADE).state == "another router"
    assert read_standing(*arguments, None, now=MADE).state == "another router"


def test_a_policy_without_a_floor_and_an_unknown_one_are_refused(places: Places) -> None:
    with pytest.raises(ConfigError, match="--policy: unknown policy 'savr'; did you mean 'saver'"):
        run(places, policy="savr")
    with pytest.raises(ConfigError, match=r"policies.default: has no quality_floor"):
        run(places, policy="default")


def test_the_command_writes_a_report_and_says_how_to_grade_more(places: Places, capsys: pytest.CaptureFixture) -> None:
    probes = write_probes(places.out.parent / "probes.jsonl", names(100, 150))
    words = ["--config", str(places.config), "--data-dir", str(places.data_dir), "--policy", "saver"]
    assert run_cli("certify", [*words, "--out", str(places.out), "--prompts", str(probes), "--batch", "20"]) == 0
    printed = capsys.readouterr().out
    assert "20 prompts to grade next: coe eval collect --probes" in printed
    report = Certificate.model_validate_json((places.out / "report.json").read_bytes())
    assert report == Certificate.model_validate_json((places.data_dir / CERTIFICATE_FILE).read_bytes())
    assert text_of("sql-100") not in (places.out / "report.html").read_text()
    assert np.isfinite(report.plans[0].odds)


def test_check_shows_what_the_router_predicts_of_the_floor(places: Places, capsys: pytest.CaptureFixture) -> None:
    assert run_cli("check", ["--config", str(places.config), "--data-dir", str(places.data_dir)]) == 0
    printed = capsys.readouterr().out
    assert "policy saver: the cheapest plan within 1 point of strong, budgets none" in printed
    assert "policy saver: predicted quality 0." in printed
