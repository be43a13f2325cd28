"""Cases in which one router in the place of another changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from base.shipped import seed_folder
from fleet.router_registry import Registry
from router.artifact import load_artifact, save_artifact
from router.build import load_router
from router.config import CoeConfig, load_config
from router.pipeline import Router
from router.types import FloatArray, Query, QueryBatch
from tests.training.log_records import record
from tests.training.trained_folder import make_trained
from training.candidate_verdict import decide_alike, decide_log_alike
from training.datasets.labelled_queries import read_seed
from training.log_answers import AskedAnswers
from training.log_table import collect

TEXTS = tuple(query.text for query in read_seed(seed_folder()) if query.category in ("sql", "facts"))[::9]
Change = Callable[[dict[str, FloatArray]], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trained(tmp_path_factory.mktemp("trained"), per_category=12)


def settings(folder: Path, **policies: object) -> CoeConfig:
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    values["router"]["alpha"] = 0.5  # so that stage 1 is sure of some
    path = folder / "variant.yaml"
    path.write_text(yaml.safe_dump(values | {"policies": policies or {"default": {}}}))
    return load_config(path)


def variant(folder: Path, config: CoeConfig, root: Path, change: Change) -> Router:
    """The live router with some arrays changed."""
    live = Registry(folder / "data" / "routers").live()
    artifact = load_artifact(folder / "data" / "routers" / live.version)
    arrays = {name: np.array(array) for name, array in artifact.arrays.items()}
    change(arrays)
    fields = artifact.manifest.model_dump(exclude={"version", "weights_sha256"})
    return load_router(config, root / save_artifact(root, fields, arrays).manifest.version)


def both(folder: Path, root: Path, change: Change, **policies: object) -> tuple[Router, Router]:
    config = settings(folder, **policies)
    return variant(folder, config, root, lambda _: None), variant(folder, config, root, change)


def are_alike(one: Router, other: Router) -> bool:
    return decide_alike(one, other, TEXTS, one.encoder.encode(TEXTS))


def better_everywhere(by: float) -> Change:
    def change(arrays: dict[str, FloatArray]) -> None:
        arrays["map.quality"] += np.float32(by)

    return change


def right_gains(by: float) -> Change:
    def change(arrays: dict[str, FloatArray]) -> None:
        arrays["map.quality"][:, 1] += np.float32(by)

    return change


def blurred(arrays: dict[str, FloatArray]) -> None:
    """A classifier that knows nothing and names the first category."""
    arrays["classifier.weights"] *= np.float32(0)


def test_predictions_alone_are_no_decision(folder: Path, tmp_path: Path) -> None:
    one, other = both(folder, tmp_path, better_everywhere(0.1))
    assert one.version != other.version
    assert are_alike(one, other)


def test_another_expert_is_one(folder: Path, tmp_path: Path) -> None:
    assert not are_alike(*both(folder, tmp_path, right_gains(0.9)))


def test_another_category_is_one_though_the_expert_is_the_same(folder: Path, tmp_path: Path) -> None:
    one, other = both(folder, tmp_path, blurred)
    assert set(one.expert_of().values()) == set(other.expert_of().values()) == {"left"}
    batch = QueryBatch(tuple(Query(text, text) for text in TEXTS), one.encoder.encode(TEXTS))
    made = [router.decide_batch(batch, rng=np.random.default_rng(0)) for router in (one, other)]
    assert [{d.category for d in each} for each in made] == [{"sql", "facts"}, {"facts"}]
    assert not are_alike(one, other)


def test_every_policy_counts(folder: Path, tmp_path: Path) -> None:
    """The default pins every category, the other one follows the map."""
    pins = {"pins": {"facts": "left", "sql": "left", "general": "left"}}
    assert are_alike(*both(folder, tmp_path, right_gains(0.9), default=pins))
    assert not are_alike(*both(folder, tmp_path, right_gains(0.9), default=pins, free={}))


def test_whom_exploration_draws_is_no_other_decision(folder: Path, tmp_path: Path) -> None:
    one, other = both(folder, tmp_path, right_gains(0.1), default={"exploration": 0.02})
    query, rng = one.encoder.encode([TEXTS[0]]), np.random.default_rng(0)
    made = [router.decide(Query("q", TEXTS[0]), rng=rng, embedding=query).eligible_probs for router in (one, other)]
    assert made[0] != made[1]
    assert are_alike(one, other)


def test_another_set_of_experts_is_never_alike(folder: Path, tmp_path: Path) -> None:
    """An expert that serves nothing now may be the only one that takes an image."""
    one, other = both(folder, tmp_path, lambda _: None)
    assert are_alike(one, other)
    assert not are_alike(one, replace(other, experts=other.experts[:1]))


def test_logged_queries_are_decided_as_they_were_then(folder: Path, tmp_path: Path) -> None:
    """Without `left`, which was down then, both want `right`."""
    one, other = both(folder, tmp_path, right_gains(0.9))

    def asked(excluded: tuple[str, ...]) -> AskedAnswers:
        n = len(TEXTS)
        log = collect([record(i) for i in range(n)], {f"d{i}": 1.0 for i in range(n)})
        vectors = one.encoder.encode(TEXTS).astype(np.float16)
        return AskedAnswers(log, TEXTS, vectors, ("default",) * n, (excluded,) * n, (("left", "right"),) * n)

    assert decide_log_alike(one, other, asked(("left",)))
    assert not decide_log_alike(one, other, asked(()))
