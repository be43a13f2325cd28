"""Configuration to live objects: costs, backends, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coe.base.errors import ArtifactError, BackendError, ConfigError
from coe.fleet.calls.backend import BackendRequest
from coe.fleet.calls.connect import build_backends, ids_on_base, lora_selection
from coe.fleet.calls.pool import ExpertPool
from coe.router.build import build_encoder, expert_costs, load_router, table_router
from coe.router.capabilities import capabilities
from coe.router.config.composition import parse_config
from coe.router.config.expert import ExpertConfig
from coe.router.config.policy import Budgets
from coe.router.model_files.artifact import load_artifact, save_artifact
from coe.router.quality import CAUTION, UNPROVEN, QualityMatrix, cautious_quality, quality_from_arrays
from coe.router.section import PluginConfig
from tests.gateway.fault_upstream import fault_upstream
from tests.small_composition import config_of

CONFIG: dict[str, Any] = {
    "categories": {"code": "programs", "facts": "questions", "general": "the rest"},
    "experts": {
        "base": {"engine": "llamacpp", "model": "m.gguf", "params_b": 2.0},
        "tuned": {"engine": "llamacpp", "model": "m.gguf", "adapter": "a", "params_b": 2.0},
        "far": {"engine": "openai", "model": "x", "url": "http://127.0.0.1:9/v1", "price": {"output": 10.0}},
    },
    "router": {"encoder": {"kind": "hashing", "dim": 8}, "classifier": {"kind": "logistic"}},
}


def evidence(m: int) -> QualityMatrix:
    full = np.full((3, m), 0.5, np.float32)
    return QualityMatrix(full, full, full, np.ones(3, np.float32), np.full(3, 100, np.float32), full * 400, full)


def artifact(
    root: Path,
    *,
    experts=("base", "tuned", "far"),
    categories=("code", "facts"),
    dim=8,
    scorer="map",
    choice=None,
) -> Path:
    encoder = build_encoder(PluginConfig.model_validate({"kind": "hashing", "dim": dim}))
    manifest = {
        "created_at": "2026-01-01T00:00:00+00:00",
        "encoder": {
            "kind": "hashing",
            "options": {"dim": dim},
            "fingerprint": encoder.fingerprint,
            "dim": dim,
        },
        "classifier": {"kind": "logistic"},
        "scorer": {"kind": scorer},
        "categories": categories,
        "experts": experts,
        "temperature": 1.0,
    }
    k = len(categories)
    arrays = {
        "classifier.weights": np.zeros((dim, k), np.float32),
        "classifier.bias": np.zeros(k, np.float32),
        "uncertainty.reference": np.eye(dim, dtype=np.float16),
        "uncertainty.held_out_distances": np.array([0.1, 0.2], np.float32),
        "uncertainty.held_out_scores": np.array([0.1, 0.2], np.float32),
        "uncertainty.held_out_correct": np.array([1, 1], np.uint8),
        "uncertainty.weight": np.array([0.5], np.float32),
    }
    arrays |= {f"map.{name}": array for name, array in evidence(len(experts)).arrays().items()}
    arrays |= {f"choice.{name}": array for name, array in (choice or {}).items()}
    return root / save_artifact(root, manifest, arrays).manifest.version


def test_an_expert_that_left_the_file_drops_out_of_the_map(tmp_path):
    router = load_router(parse_config(CONFIG), artifact(tmp_path, experts=("gone", "base", "far")))
    assert router.experts == ("base", "far")
    assert set(router.expert_of().values()) <= {"base", "far"}


def test_a_router_without_any_expert_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"knows the experts gone, and experts.yaml has none of them"):
        load_router(parse_config(CONFIG), artifact(tmp_path, experts=("gone",)))


def test_a_router_for_other_categories_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"categories that experts.yaml lacks: poetry"):
        load_router(parse_config(CONFIG), artifact(tmp_path, categories=("code", "poetry")))


def test_a_router_of_another_encoder_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="trained on encoder hashing"):
        load_router(parse_config(CONFIG), artifact(tmp_path, dim=16))


def test_costs_come_from_the_file_and_tokens_from_the_evidence():
    entries = [ExpertConfig.model_validate(values) for values in CONFIG["experts"].values()]
    costs = expert_costs(entries, evidence(3))
    assert costs.group.tolist() == [0, 0, 1]
    assert costs.group_params_b.tolist() == [2.0, 0.0]
    assert costs.active_params_b == pytest.approx([2.0, 2.0, 0.0])
    assert costs.cost_usd[0] == pytest.approx([0.0, 0.0, 200 * 10 / 1e6])


def test_prompts_cost_the_price_of_input_and_answers_that_of_output():
    prices = {"price": {"input": 3.0, "output": 50.0}}
    entry = ExpertConfig.model_validate({"engine": "litellm", "model": "x"} | prices)
    costs = expert_costs([entry], evidence(1))
    assert costs.cost_usd[:, 0] == pytest.approx([(100 * 3 + 200 * 50) / 1e6] * 3)


SAMPLE = {"sample": np.array([[0.5, 0.9, 0.1]] * 4, np.float32), "margin": np.zeros(1, np.float32)}
USD = {"base": np.array([1, 1, 1]), "tuned": np.array([1, 9, 5]), "far": 5.0}


def test_a_table_router_prices_by_category(tmp_path):
    """`tuned` is dear on facts; the budget lets it answer the two queries that are code."""
    place = artifact(tmp_path, scorer="soft_map", choice=SAMPLE | {"rows": np.array([0, 0, 1, 1])})
    router = table_router(load_artifact(place), budgets=Budgets(cost_usd=1.5), cost_usd=USD)
    assert router.costs.cost_usd.tolist() == [[1, 1, 5], [1, 9, 5], [1, 5, 5]]
    tolls = router.policy("default").preference.tolls
    assert tolls.shape == (3, 3)
    assert tolls[1, 1] > tolls[1, 0]


def test_a_sample_without_rows_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="'rows'"):
        table_router(load_artifact(artifact(tmp_path, scorer="soft_map", choice=SAMPLE)))


@pytest.mark.parametrize("rows", [np.array([0, 0, 1, 3]), np.array([0, -1, 1, 1]), np.array([0, 1])])
def test_rows_of_the_sample_that_fit_nothing_are_refused(tmp_path, rows):
    place = artifact(tmp_path, scorer="soft_map", choice=SAMPLE | {"rows": rows})
    with pytest.raises(ArtifactError, match="'rows'"):
        table_router(load_artifact(place))


def test_a_slot_of_the_embedded_engine_bounds_the_context_of_its_experts():
    values = CONFIG | {"experts": {**CONFIG["experts"], "short": CONFIG["experts"]["base"] | {"context_tokens": 512}}}
    found = capabilities(parse_config(values | {"llamacpp": {"context_tokens": 1024}}))
    tokens = {name: capability.context_tokens for name, capability in found.items()}
    assert tokens == {"base": 1024, "tuned": 1024, "far": 4096, "short": 512}


def test_an_adapter_is_selected_alone_and_the_base_names_all_that_are_off():
    ids = {"base": None, "tuned": 0, "other": 1}
    assert lora_selection(1, ids) == {
        "lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}],
        "cache_prompt": True,
    }
    assert lora_selection(None, ids) == {
        "lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}],
        "cache_prompt": True,
    }


def test_backends_need_an_address():
    config = parse_config(CONFIG)
    with pytest.raises(ConfigError, match=r"experts.base: no address"):
        build_backends(config, {}, {}, {})


async def test_an_expert_whose_key_is_not_set_is_disabled(caplog: pytest.LogCaptureFixture):
    keyed = dict(CONFIG, experts={"far": CONFIG["experts"]["far"] | {"api_key_env": "FAR_KEY"}})
    pool = ExpertPool(build_backends(parse_config(keyed), {}, {}, {}))
    await pool.probe_all()
    problem = "experts.far.api_key_env: environment variable FAR_KEY is not set"
    assert (pool.problems(), pool.alive) == ({"far": problem}, frozenset())
    assert f"{problem}; the expert is disabled" in caplog.text
    with pytest.raises(BackendError, match="FAR_KEY is not set"):
        await pool.backend("far").send(BackendRequest({}, is_stream=False))


@pytest.mark.parametrize(
    ("entry", "running", "sent"),
    [
        ({"engine": "openai", "url": "URL"}, False, "org/m"),
        ({"engine": "vllm", "url": "URL"}, False, "org/m"),
        ({"engine": "vllm", "url": "URL", "served_model": "m-v2"}, False, "m-v2"),
        ({"engine": "vllm", "url": "URL", "adapter": "a", "served_model": "law"}, False, "law"),
        ({"engine": "vllm"}, True, "far"),
        ({"engine": "vllm", "adapter": "a"}, True, "far"),
        ({"engine": "vllm", "served_model": "m-v2"}, True, "m-v2"),
        ({"engine": "llamacpp"}, True, "far"),
    ],
)
async def test_an_engine_gets_model_unless_we_started_it_under_the_experts_name(entry, running, sent) -> None:
    async with fault_upstream() as upstream:
        values = {key: upstream.url if value == "URL" else value for key, value in entry.items()}
        config = parse_config(CONFIG | {"experts": {"far": {"model": "org/m"} | values}})
        backend = build_backends(config, {"far": (upstream.url,)} if running else {}, {}, {})["far"]
        response = await backend.send(BackendRequest({"model": "auto", "messages": []}))
        _ = [chunk async for chunk in response.chunks]
        await backend.aclose()
    assert upstream.requests[0]["model"] == sent


def test_each_base_counts_its_own_adapters() -> None:
    entry = {"engine": "llamacpp"}
    experts = {
        "one": {**entry, "model": "a.gguf", "adapter": "x"},
        "two": {**entry, "model": "b.gguf", "adapter": "y"},
        "three": {**entry, "model": "b.gguf", "adapter": "z"},
    }
    config = config_of(experts)
    assert ids_on_base(config, "a.gguf", {"one": 0, "two": 0, "three": 1}) == {"one": 0}
    assert ids_on_base(config, "b.gguf", {"one": 0, "two": 0, "three": 1}) == {"two": 0, "three": 1}


def test_a_lucky_cell_does_not_beat_the_reference_and_a_clear_one_does():
    quality = np.array([[0.3, 0.33, 0.8], [0.9, 0.1, 0.1], [0.5, 0.1, 0.45]], np.float32)
    count = np.array([[10, 10, 10], [10, 10, 10], [10, 10, 0]], np.float32)
    error, mass = np.full((3, 3), 0.1, np.float32), np.array([0.8, 0.1, 0.1], np.float32)
    zero = np.zeros((3, 3), np.float32)
    evidence = QualityMatrix(quality, error, count, mass, np.zeros(3, np.float32), zero, zero)
    found = cautious_quality(evidence)
    error = CAUTION * 0.1 * 2**0.5  # of a difference of two cells
    assert found[0] == pytest.approx([0.3, 0.3 - UNPROVEN, 0.8 - error])  # 0.03 is noise, 0.5 is not
    assert found[1] == pytest.approx([0.9, 0.1, 0.1])  # what is worse stays worse
    assert found[2] == pytest.approx([0.5, 0.1, 0.45])
    quality[2, 2] = 0.7
    ungraded = replace(evidence, quality=quality, stderr=np.zeros_like(quality))
    assert cautious_quality(ungraded)[2] == pytest.approx([0.5, 0.1, 0.5 - UNPROVEN])  # 0.7 was never graded


def test_who_serves_a_category_keeps_it_against_any_lead():
    quality = np.array([[0.3, 0.35, 0.7], [0.5, 0.1, 0.47], [0.9, 0.1, 0.45]], np.float32)
    full, zero = np.full((3, 3), 10, np.float32), np.zeros((3, 3), np.float32)
    serving = np.array([1, 2, -1], np.float32)
    measured = QualityMatrix(quality, full / 100, full, full[0] / 30, zero[0], zero, zero, serving)
    found = cautious_quality(measured)
    assert found[0] == pytest.approx([0.3, 0.35, 0.35 - UNPROVEN])
    assert found[1] == pytest.approx([0.47 - UNPROVEN, 0.1, 0.47])
    assert found[2] == pytest.approx([0.9, 0.1, 0.45])  # nobody served: the best overall is the reference
    assert measured.columns([2, 0]).serving.tolist() == [-1, 0, -1]
    assert quality_from_arrays(measured.arrays(), 2, 3).serving.tolist() == serving.tolist()
    for number in (-2, 3, 0.5):
        with pytest.raises(ArtifactError, match="'serving' must hold -1 to 2"):
            quality_from_arrays(measured.arrays() | {"serving": np.full(len(serving), number, np.float32)}, 2, 3)


def test_an_expert_that_mostly_serves_its_own_category_is_not_the_reference():
    """Only who serves gets rewards: `b` has thousands in its category, and must not stand for the rest."""
    quality = np.array([[0.2, 0.7], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4]], np.float32)
    count = np.array([[10, 5000], [10, 10], [10, 10], [10, 10]], np.float32)
    zero = np.zeros((4, 2), np.float32)
    evidence = QualityMatrix(quality, np.full((4, 2), 0.3, np.float32), count, count[:, 1], zero[:, 0], zero, zero)
    found = cautious_quality(evidence)
    leads = found - quality[:, :1]
    assert leads[:, 0] == pytest.approx([0.0] * 4)  # `a` is the reference, though most queries are those of `b`
    assert leads[1:, 1] == pytest.approx([-0.2] * 3)


def test_where_an_expert_never_answered_its_answers_are_as_long_as_its_others():
    entries = [ExpertConfig.model_validate(values) for values in CONFIG["experts"].values()]
    seen = evidence(3)
    tokens = np.array([[200, 200, 0], [200, 200, 300], [200, 200, 500]], np.float32)
    costs = expert_costs(entries, replace(seen, output_tokens=tokens))
    assert costs.cost_usd[:, 2] == pytest.approx(np.array([400, 300, 500]) * 10 / 1e6)


@pytest.mark.parametrize(
    ("pins", "said"),
    [
        ({"code": "far"}, "policies.default.pins.code: router .* has not measured 'far'.*coe experts probe far"),
        ({"facts": "base"}, "policies.default.pins.facts: router .* does not know the category 'facts'.*coe train"),
    ],
)
def test_a_pin_that_a_router_cannot_keep_is_refused(tmp_path, pins, said):
    config = parse_config(CONFIG | {"policies": {"default": {"pins": pins}}})
    folder = artifact(tmp_path, experts=("base", "tuned"), categories=("code",))
    with pytest.raises(ConfigError, match=said):
        load_router(config, folder)


def test_a_pin_that_is_measured_holds(tmp_path):
    config = parse_config(CONFIG | {"policies": {"default": {"pins": {"code": "far", "general": "tuned"}}}})
    router = load_router(config, artifact(tmp_path))
    assert {name: router.expert_of()[name] for name in ("code", "general")} == {"code": "far", "general": "tuned"}
