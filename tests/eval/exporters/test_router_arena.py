"""RouterArena: predictions of a trained router, and the score of a graded file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.arena_files import read_arena_prompts, score_predictions
from eval.export_formats import ExportRequest, export, load_exporter
from eval.metrics.router_arena import router_arena_score
from router.errors import ConfigError, DataError
from training.datasets.outcomes import write_outcomes
from training.progress import silent
from training.table_fit import TableRequest, table_router
from training.types import OutcomeTable

PROMPTS = [
    {"global index": "MATH_1", "prompt_formatted": "sum of number 3 and number 4\n", "prompt": "bare"},
    {"global_index": "LAW_1", "prompt": "court and judge of the law case 9"},
]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router of two experts, each perfect in one of two categories that share no word."""
    folder = tmp_path_factory.mktemp("arena")
    texts = [f"sum of number {i} and number {i + 1}" for i in range(40)]
    texts += [f"court and judge of the law case {i}" for i in range(40)]
    scores = np.array([[1, 0]] * 40 + [[0, 1]] * 40, dtype=np.float32)
    unknown = np.full_like(scores, np.nan)
    table = OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in range(80)),
        texts=tuple(texts),
        categories=("math",) * 40 + ("law",) * 40,
        splits=("train",) * 80,
        experts=("calculator", "lawyer"),
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="exact",
        source="made",
    )
    write_outcomes(table, folder / "made")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    artifact = table_router(folder / "routers", TableRequest(folder / "made", "hashing"), now=now, progress=silent)
    return folder / "routers" / artifact.manifest.version


def save(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_predictions_are_the_routers_decisions_on_the_exact_prompts(router: Path, tmp_path: Path) -> None:
    request = ExportRequest(
        tmp_path / "p.json",
        router=router,
        prompts=save(tmp_path / "prompts.json", PROMPTS),
        names={"lawyer": "gpt-4o-mini"},
    )
    assert export(load_exporter("router_arena"), request) == 2
    first, second = json.loads(request.out.read_text())
    assert (first["global index"], first["prompt"], first["prediction"]) == (
        "MATH_1",
        "sum of number 3 and number 4\n",
        "calculator",
    )
    assert (second["global index"], second["prediction"]) == ("LAW_1", "gpt-4o-mini")
    assert {first[name] for name in ("generated_result", "cost", "accuracy")} == {None}
    assert first["for_optimality"] is False


def test_a_name_for_an_expert_that_is_not_there_is_refused(router: Path, tmp_path: Path) -> None:
    prompts = save(tmp_path / "prompts.json", PROMPTS)
    request = ExportRequest(tmp_path / "p.json", router=router, prompts=prompts, names={"lawer": "x"})
    with pytest.raises(ConfigError, match=r"--name: unknown expert 'lawer'; did you mean 'lawyer'"):
        export(load_exporter("router_arena"), request)


def graded() -> list[dict[str, Any]]:
    rows = [("A_1", 1.0, 0.002), ("A_2", 0.0, 0.004), ("A_3", 0.5, 0.0), ("A_4", None, None)]
    return [
        {"global index": index, "prompt": "x", "prediction": "m", "accuracy": accuracy, "cost": cost}
        for index, accuracy, cost in rows
    ] + [{"global index": "A_1", "prediction": "n", "accuracy": 1.0, "cost": 9.0, "for_optimality": True}]


def test_a_graded_file_is_scored_as_router_arena_does(tmp_path: Path) -> None:
    result = score_predictions(save(tmp_path / "p.json", graded()))
    assert result.accuracy == pytest.approx(0.5)  # of the three that were graded
    assert result.cost_per_1k_usd == pytest.approx(1.5)  # 0.006 USD over all four
    assert result.score == router_arena_score(0.5, 1.5)
    assert (result.n_predictions, result.n_graded, result.n_priced, result.n_optimality) == (4, 3, 2, 1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[1].update(accuracy=80), r"row 2, field 'accuracy': 80 is not allowed; expected 0 to 1"),
        (lambda rows: rows[1].update(cost=-1), r"row 2, field 'cost': -1 is not allowed"),
        (lambda rows: rows[1].update(prediction=None), r"row 2, field 'prediction': expected a text; got null"),
        (lambda rows: rows[2].update({"global index": "A_1"}), r"row 3, field 'global index': 'A_1' is there already"),
        (lambda rows: rows[2].pop("global index"), r"row 3, field 'global index': is missing"),
        (lambda rows: [row.update(cost=None) for row in rows], r"no prediction has a value in 'cost'"),
        (lambda rows: [row.pop("accuracy") for row in rows], r"no prediction has a value in 'accuracy'"),
        (lambda rows: rows.clear(), r"expected a list of objects; got an empty one"),
        (lambda rows: rows.append(1), r"row 6: expected an object; got a number"),
    ],
)
def test_a_malformed_prediction_file_is_named_with_row_and_field(
    tmp_path: Path, change: Callable[[list[Any]], object], complaint: str
) -> None:
    rows = graded()
    change(rows)
    with pytest.raises(DataError, match=complaint):
        score_predictions(save(tmp_path / "p.json", rows))


def test_half_a_file_and_repeated_prompts_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "p.json", graded())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"p.json: is not JSON, or only half of it"):
        score_predictions(path)
    with pytest.raises(DataError, match=r"row 3, field 'global index': 'MATH_1' is there already"):
        read_arena_prompts(save(tmp_path / "q.json", [*PROMPTS, PROMPTS[0]]))
