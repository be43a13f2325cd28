"""Decisions among many experts: the log names the best, and estimates are those of a log that names all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.cli.progress import silent
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs, DecisionRecord
from coe.decision_log.feedback_types import Feedback, FeedbackKind
from coe.decision_log.payloads import to_payload
from coe.router.brief_decision import MOST_EXPERTS, brief
from coe.router.build import live_router
from coe.router.config import load_config
from coe.router.features import to_bytes
from coe.router.pipeline import Router
from coe.router.types import Query, QueryFacts
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.log_answers import NOT_RECORDED, AskedAnswers, WholeDecisions, as_logged, choices_on, fetch_answers
from coe.training.log_table import read_log_table
from tests.logged import answered, decision_of
from tests.training.trained_folder import CONFIG, NOW, outcome_table, put_first_router

ASKED = 24


def trained(folder: Path, n_experts: int) -> Path:
    """A data folder with a live router that explores; every tenth expert reads images."""
    names = tuple(f"expert-{i:04}" for i in range(n_experts))
    entries = {
        n: {"engine": "echo", "model": n, "supports": ["images", "json"] if i % 10 == 0 else ["json"]}
        for i, n in enumerate(names)
    }
    config = {**CONFIG, "experts": entries, "policies": {"default": {"exploration": 0.2}}}
    folder.mkdir(exist_ok=True)
    (folder / "experts.yaml").write_text(yaml.dump(config))
    prompts = [(category, i) for category in ("facts", "sql", "general") for i in range(8)]
    scores = np.random.default_rng(0).random((len(prompts), n_experts)).round()
    write_outcomes(outcome_table(prompts, names, scores), folder / "outcomes")
    put_first_router(folder / "experts.yaml", folder / "outcomes", folder / "routers", NOW)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("many"), 40)


def router_in(folder: Path) -> Router:
    return live_router(load_config(folder / "experts.yaml"), folder)


def logged(router: Router, count: int) -> list[DecisionRecord]:
    """Records with whole decisions; every third request has an image, and the best expert was away for each fourth."""
    rng, records = np.random.default_rng(5), []
    away = router.experts[int(router.scorer.measured.evidence.quality.sum(axis=0).argmax())]
    for number in range(count):
        text, facts = f"question {number} about rows", QueryFacts(has_image=number % 3 == 0)
        unreachable = (away,) if number % 4 == 0 else ()
        alive = [name for name in router.experts if name not in unreachable]
        vector = router.embed(text).astype(np.float16).astype(np.float32)
        made = router.decide(Query(f"d{number}", text, facts), rng=rng, alive=alive, embedding=vector)
        inputs = DecisionInputs(
            encoder=router.encoder.fingerprint,
            features="",
            settings=router.settings["default"],
            facts=facts,
            unreachable=unreachable,
        )
        records.append(answered(f"d{number}", number, made, inputs=inputs, embedding=to_bytes(vector), replica="a"))
    return records


def shortened(record: DecisionRecord) -> DecisionRecord:
    return record.model_copy(update={"decision": brief(record.decision, (record.served_expert,))})


def answers_of(folder: Path, name: str, records: list[DecisionRecord], whole=as_logged) -> AskedAnswers:
    url = f"sqlite:///{folder / name}"
    database = Database(url)
    database.write_decisions(records)
    for record in records:
        database.put_feedback(
            Feedback(decision_id=record.decision_id, kind=FeedbackKind.THUMB, value=1.0, at=1e6, key_id="key")
        )
    database.close()
    return fetch_answers(url, read_log_table(url), router_in(folder).encoder, silent, whole=whole)


def test_a_record_of_a_thousand_experts_is_small_and_one_of_few_is_whole(tmp_path: Path) -> None:
    records = logged(router_in(trained(tmp_path / "large", 1000)), 4)
    assert min(len(to_payload(record)) for record in records) > 50_000
    assert max(len(to_payload(shortened(record)).partition(b"\n")[0]) for record in records) < 3000
    few = logged(router_in(trained(tmp_path / "few", MOST_EXPERTS)), 4)
    assert [shortened(record) for record in few] == few


def test_a_brief_decision_keeps_what_is_read_of_it_and_sums_the_rest(many: Path) -> None:
    for record in logged(router_in(many), ASKED):
        whole, short = record.decision, brief(record.decision)
        quality = dict(zip(whole.eligible, whole.predicted_quality, strict=True))
        assert (short.expert, short.propensity, short.seed) == (whole.expert, whole.propensity, whole.seed)
        assert short.ranking[: MOST_EXPERTS // 2] == whole.ranking[: MOST_EXPERTS // 2]
        assert max(short.predicted_quality) == max(quality.values())
        assert short.expert in short.eligible
        assert sum(short.eligible_probs) + short.rest.prob == pytest.approx(1.0)
        names = (*short.eligible, *short.excluded, *short.outside_policy)
        assert len(names) == len(short.predicted_cost_usd) == len(short.predicted_wait_ms) < MOST_EXPERTS + 4
        assert len(short.excluded_quality) == len(short.excluded) + len(short.outside_policy)
        assert short.rest.eligible + len(short.eligible) == len(whole.eligible)
        changed = whole.model_copy(update={"eligible_probs": (*whole.eligible_probs[:-1], 0.5)})
        assert brief(changed).rest.sha256 != short.rest.sha256


def test_a_decision_without_predictions_is_brief_as_well() -> None:
    lacks = {f"expert-{i}": "takes no images" for i in range(1000)}
    short = brief(decision_of("other", "sql", eligible=("other",), eligible_probs=(1.0,), excluded=lacks))
    assert (short.eligible, short.eligible_probs) == (("other",), (1.0,))
    assert len(short.excluded) < MOST_EXPERTS + 1
    assert short.rest.reasons == {"takes no images": 1000 - len(short.excluded)}


def test_estimates_are_those_of_a_log_that_names_all(many: Path) -> None:
    router, records = router_in(many), logged(router_in(many), ASKED)
    config = load_config(many / "experts.yaml")
    whole = WholeDecisions(config, many / "routers", router.encoder)
    full = answers_of(many, "full.db", records)
    short = answers_of(many, "short.db", [shortened(record) for record in records], whole.of)
    assert len(full) == ASKED
    assert short.log.propensity.tolist() == full.log.propensity.tolist()
    assert short.chances == full.chances
    assert short.excluded == full.excluded
    assert any(0 < chance < 1 for own in short.chances for chance in own.values())
    found = [choices_on(router, asked, router.experts) for asked in (full, short)]
    assert found[0].chosen.tolist() == found[1].chosen.tolist()


def test_what_is_decided_otherwise_now_has_no_chance_and_without_its_router_is_left_out(
    many: Path, tmp_path: Path
) -> None:
    router, records = router_in(many), [shortened(record) for record in logged(router_in(many), ASKED)]
    config = load_config(many / "experts.yaml")
    policy = config.policies["default"]
    certain = policy.model_copy(update={"exploration": 0.0})
    whole = WholeDecisions(
        config.model_copy(update={"policies": {"default": certain}}), many / "routers", router.encoder
    )
    explored = [record for record in records if record.decision.propensity < 1]
    assert explored
    for record in explored:
        made = whole.of(record, router.embed(f"question {record.seq} about rows"))
        unnamed = set(router.experts) - {*record.decision.eligible, *made.excluded}
        assert set(made.outside_policy) == unnamed
        assert set(made.outside_policy.values()) == {NOT_RECORDED}
        assert made.eligible_probs == record.decision.eligible_probs
    gone = replace(whole, routers=tmp_path, _loaded={})
    assert gone.of(records[0], router.embed("x")) is None
