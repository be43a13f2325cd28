"""Units of the decision log: whole keys, or whole questions, unbiased by who was explored how often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from sqlalchemy import create_engine, text

from coe.cli.progress import silent
from coe.decision_log.database import Database
from coe.decision_log.default_database import default_database_url
from coe.eval.certify.certify import Claim, shown_plans
from coe.eval.certify.ladder import Ladder, build_ladder
from coe.eval.certify.log_units import MAX_WEIGHT, log_units
from coe.eval.certify.run import Places, run_certify
from coe.eval.certify.units import Units
from coe.router.build import configured_router
from coe.router.config.composition import CoeConfig, load_config
from coe.router.config.feedback import FeedbackConfig
from coe.router.model_files.artifact import load_artifact
from coe.router.types import DecisionReason
from tests.eval.certify.certified_folder import EXPERTS, certified_folder, configuration
from tests.eval.certify.test_run import MADE
from tests.logged import answered, decision_of

DATABASES = ("sqlite",)
SINGLE = {"quality_floor": {"within": 0.06, "of": "strong"}}
PREDICTED = (0.85, 0.85, 0.9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = certified_folder(tmp_path)
    (folder / "experts.yaml").write_text(yaml.dump(configuration(SINGLE)))
    Database(default_database_url(folder / "data")).close()
    return folder


def ladder_of(folder: Path) -> tuple[Ladder, CoeConfig]:
    config = load_config(folder / "experts.yaml")
    [path] = [each for each in (folder / "data" / "routers").iterdir() if each.is_dir()]
    artifact = load_artifact(path)

    def load(more):
        return configured_router(config.model_copy(update={"policies": config.policies | dict(more)}), artifact)

    return build_ladder(load, "saver", config.policies), config


def write_log(
    folder: Path,
    ladder: Ladder,
    right: tuple[float, ...],
    n: int,
    *,
    keys: int = 1,
    chance: float = 0.4,
    version: str = "",
) -> None:
    """n rated answers in `sql`, whose expert was drawn: small and other with a chance, else strong."""
    rng, probs = np.random.default_rng(3), (chance, chance, 1 - 2 * chance)
    engine = create_engine(default_database_url(folder / "data"))
    with engine.begin() as connection:
        for i in range(n):
            expert = int(rng.choice(3, p=probs))
            decision = decision_of(
                list(EXPERTS)[expert],
                "sql",
                reason=DecisionReason.EXPLORED,
                eligible=tuple(EXPERTS),
                eligible_probs=probs,
                predicted_quality=PREDICTED,
                propensity=probs[expert],
                router_version=version or ladder.router.version,
            )
            record = answered(f"d-{i}", i, decision, text=f"query {i}", key_id=f"team/{i % keys}")
            values = {"id": record.decision_id, "at": record.at, "record": record.model_dump_json()}
            connection.execute(
                text(
                    "INSERT INTO decisions (decision_id, at, replica, seq, state, category, is_probe, tenant, record) "
                    "VALUES (:id, :at, 'one', :at, 'answered', 'sql', false, 'team', :record)"
                ),
                values,
            )
            thumb = float(rng.random() < right[expert])
            connection.execute(
                text(
                    "INSERT INTO feedback (decision_id, kind, value, at, key_id) VALUES (:id, 'thumb', :value, :at, '')"
                ),
                {"id": record.decision_id, "value": thumb, "at": record.at},
            )
    engine.dispose()


def units(folder: Path, ladder: Ladder) -> Units:
    return log_units(default_database_url(folder / "data"), ladder, FeedbackConfig(), 0.0)


def test_gains_are_those_of_the_experts_whoever_was_explored_how_often(folder: Path) -> None:
    ladder, _ = ladder_of(folder)
    write_log(folder, ladder, (0.6, 0.6, 0.9), 1500)
    found = units(folder, ladder)
    assert found.unit_names == ("question", "questions")
    assert len(found.gains) == found.n_graded == 1500
    row = ladder.router.categories.index("sql")
    for plan, choice in enumerate(ladder.by_row[row, 1:].tolist()):
        expected = 0.0 if choice == 2 else -0.3
        assert found.gains[:, plan].mean() == pytest.approx(expected, abs=0.1)
    assert (found.gains >= -found.worst_loss[:, None]).all()
    assert (found.saved[:, -1] > 0).all()


def test_each_key_counts_once(folder: Path) -> None:
    ladder, _ = ladder_of(folder)
    write_log(folder, ladder, (0.9, 0.9, 0.9), 200, keys=5)
    found = units(folder, ladder)
    assert (len(found.gains), found.unit_names, found.n_graded) == (5, ("key", "keys"), 200)


def test_an_expert_that_had_hardly_a_chance_is_taken_to_be_the_worst(folder: Path) -> None:
    ladder, _ = ladder_of(folder)
    write_log(folder, ladder, (1.0, 1.0, 0.0), 60, chance=0.5 / MAX_WEIGHT)
    found = units(folder, ladder)
    assert set(found.gains[:, -1].tolist()) == {-1.0}
    assert shown_plans(found, 0.01)[1] == 0


def test_answers_of_another_router_say_nothing(folder: Path) -> None:
    ladder, _ = ladder_of(folder)
    write_log(folder, ladder, (0.9, 0.9, 0.9), 20, version="older")
    assert len(units(folder, ladder).gains) == 0


def test_the_certificate_of_a_log_says_what_it_rests_on(folder: Path) -> None:
    ladder, _ = ladder_of(folder)
    write_log(folder, ladder, (0.6, 0.6, 0.9), 300)
    places = Places(folder / "experts.yaml", folder / "data", folder / "out", None, folder / "cache")
    made, n_next = run_certify(places, Claim("saver", 0.01, MADE, valid_days=30), 0.0, 100, silent)
    assert n_next == 0
    assert not made.shown
    assert made.statement.endswith("(300 questions, 300 graded).")
    assert made.since.startswith("1970-01-01")
