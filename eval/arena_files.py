"""Files of RouterArena (arXiv 2510.00202): its prompts, and prediction files that its scripts have graded.

RouterArena is a test: nothing here becomes an outcome table, and the importers refuse these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.metrics.router_arena import router_arena_score
from router.errors import DataError
from training.datasets.record_files import ABSENT, Record, json_value, kind_of


@dataclass(frozen=True, slots=True)
class ArenaPrompt:
    """One prompt, worded exactly as RouterArena checks it."""

    global_index: str
    text: str


@dataclass(frozen=True, slots=True)
class ArenaResult:
    """A graded prediction file.

    `accuracy` is the mean over the graded predictions, in [0, 1]; `cost_per_1k_usd` is over all, those without a cost
    counted as free, as RouterArena does. `n_optimality` entries of other models are left out of both.
    """

    accuracy: float
    cost_per_1k_usd: float
    score: float
    n_predictions: int
    n_graded: int
    n_priced: int
    n_optimality: int


def arena_records(path: Path) -> Iterator[Record]:
    """The objects of a RouterArena file. Raises DataError."""
    values = json_value(path)
    if not isinstance(values, list) or not values:
        raise DataError(
            f"{path}: expected a list of objects; got {'an empty one' if values == [] else kind_of(values)}"
        )
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{path}: row {number}: expected an object; got {kind_of(value)}")
        yield Record(f"{path}: row {number}", value)


def global_index(record: Record) -> str:
    """Both spellings occur. Raises DataError."""
    return record.text("global index" if record.get("global_index") is ABSENT else "global_index")


def read_arena_prompts(path: Path) -> tuple[ArenaPrompt, ...]:
    """Raises DataError with row and field; also when an index stands twice."""
    prompts: dict[str, ArenaPrompt] = {}
    for record in arena_records(path):
        index = global_index(record)
        text = record.optional_text("prompt_formatted") or record.text("prompt")
        if index in prompts:
            raise record.fault("global index", f"'{index}' is there already")
        prompts[index] = ArenaPrompt(index, text)
    return tuple(prompts.values())


def score_predictions(path: Path) -> ArenaResult:
    """The RouterArena score of a graded prediction file, as `llm_evaluation/run.py` there computes it.

    Raises:
        DataError: with row and field; also when nothing was graded or priced, or an index stands twice.
    """
    accuracies: list[float] = []
    costs: list[float] = []
    n_optimality, indices = 0, set[str]()
    for record in arena_records(path):
        if record.get("for_optimality") is True:
            n_optimality += 1
            continue
        index = global_index(record)
        record.text("prediction")
        if index in indices:
            raise record.fault("global index", f"'{index}' is there already")
        indices.add(index)
        accuracy, cost = record.number("accuracy"), record.amount("cost")
        if accuracy is not None and not 0 <= accuracy <= 1:
            raise record.fault("accuracy", f"{accuracy:g} is not allowed; expected 0 to 1")
        accuracies += [] if accuracy is None else [accuracy]
        costs += [cost] if cost else []
    if not accuracies or not costs:
        field = "cost" if accuracies else "accuracy"
        raise DataError(
            f"{path}: no prediction has a value in '{field}'; grade the file with RouterArena's scripts first"
        )
    accuracy, cost = sum(accuracies) / len(accuracies), sum(costs) / len(indices) * 1000
    return ArenaResult(
        accuracy=accuracy,
        cost_per_1k_usd=cost,
        score=router_arena_score(accuracy, cost),
        n_predictions=len(indices),
        n_graded=len(accuracies),
        n_priced=len(costs),
        n_optimality=n_optimality,
    )
