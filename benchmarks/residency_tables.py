"""Outcome tables for the simulated host: quality of experts by category, on train and valid prompts and on test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coe.fleet.residency.demand import Float64Array

LEAST_PROMPTS = 60
SHRINK = 10.0
"""Prompts that the mean over all categories counts in that of one."""

LEAST_SHARE = 0.5
"""A category is kept if so many of the experts have it, and then an expert if it has all of these."""

FASTEVAL_8 = (
    *("wizardmath-70b-v1.0", "wizardcoder-python-34b-v1.0", "wizardlm-70b-v1.0", "llama-2-70b-chat"),
    *("llama2-70b-oasst-sft-v10", "stablebeluga2", "wizardmath-13b-v1.0", "vicuna-33b-v1.3"),
)


@dataclass(frozen=True)
class Source:
    """A table to load.

    Args:
        source: folder of the data.
        most_b: largest model, billions of parameters.
        fits: how many engines of mean size are awake together.
        experts: None: every one of open weights and known size.
    """

    source: str
    most_b: float
    fits: float
    experts: tuple[str, ...] | None = None


TABLES: Mapping[str, Mapping[str, Source]] = {
    "tune": {"llmrouter_dc_9": Source("llmrouter_dc", 80, 3), "open_llm_lb_to_15b": Source("open_llm_lb_v2", 15, 3)},
    "report": {
        "routerdc_7": Source("routerdc", 80, 3),
        "fasteval_8": Source("fasteval", 80, 3, FASTEVAL_8),
        "open_llm_lb_to_80b": Source("open_llm_lb_v2", 80, 4),
        "mmlu_pro_to_35b": Source("mmlu_pro_cot", 35, 4),
    },
}


@dataclass(frozen=True)
class Table:
    """Qualities of m experts on k categories: `predicted` from train and valid prompts, `true` from test prompts.

    `mass` (k,) is the share of each category in the prompts.
    """

    name: str
    experts: tuple[str, ...]
    params_b: tuple[float, ...]
    predicted: Float64Array
    true: Float64Array
    mass: Float64Array


def load_table(data: Path, name: str, wanted: Source) -> Table:
    import pyarrow.parquet as pq

    sizes = {row["model"]: row["params_total_b"] for row in pq.read_table(data / "models.parquet").to_pylist()}
    columns = ["prompt_id", "benchmark", "category", "split"]
    folder = data / wanted.source
    prompts = {row["prompt_id"]: row for row in pq.read_table(folder / "prompts.parquet", columns=columns).to_pylist()}
    scores = pq.read_table(folder / "scores.parquet", columns=["prompt_id", "model", "score"]).to_pylist()
    listed = wanted.experts or sorted({row["model"] for row in scores})
    names = tuple(each for each in listed if sizes.get(each) and sizes[each] <= wanted.most_b)
    number = {each: index for index, each in enumerate(names)}
    label = labels_of(prompts)
    categories = {each: index for index, each in enumerate(sorted(set(label.values())))}
    sums = np.zeros((2, 2, len(categories), len(names)))
    for row in scores:
        if row["model"] in number:
            part = int(prompts[row["prompt_id"]]["split"] == "test")
            cell = (categories[label[row["prompt_id"]]], number[row["model"]])
            sums[(part, 0, *cell)] += row["score"]
            sums[(part, 1, *cell)] += 1
    has = np.asarray((sums[:, 1] > 0).all(axis=0))
    common = has.mean(axis=1) >= LEAST_SHARE
    full = has[common].all(axis=0)
    sums = sums[:, :, common][..., full]
    means = sums[0, 0].sum(axis=0) / sums[0, 1].sum(axis=0)
    predicted = (sums[0, 0] + SHRINK * means) / (sums[0, 1] + SHRINK)
    mass = sums[1, 1].max(axis=1)
    experts = tuple(each for each, is_full in zip(names, full, strict=True) if is_full)
    params_b = tuple(float(sizes[each]) for each in experts)
    return Table(name, experts, params_b, predicted, sums[1, 0] / sums[1, 1], mass / mass.sum())


def labels_of(prompts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Category of each prompt; small ones of a benchmark together."""
    counts: dict[str, int] = {}
    for row in prompts.values():
        counts[row["category"]] = counts.get(row["category"], 0) + 1
    return {
        key: row["category"] if counts[row["category"]] >= LEAST_PROMPTS else f"other {row['benchmark']}"
        for key, row in prompts.items()
    }
