"""Asking a new expert its probes: which there are, what it has to exceed, and `coe eval collect` for every round."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.errors import DataError, allowed_values
from base.leash import coe_command
from base.record_files import json_lines
from base.shipped import probes_folder
from router.build import expert_costs
from router.config import CoeConfig
from router.pipeline import Router
from router.policy import solve_map
from router.quality import BROAD, QualityMatrix, cautious_quality
from router.types import GENERAL, Float64Array
from training.datasets.outcomes import read_outcomes
from training.expert_map import cell_sums, row_numbers
from training.new_experts import BELOW_REFERENCE
from training.probe_plan import Bars
from training.types import OutcomeTable

Probes = tuple[tuple[Mapping[str, Any], ...], ...]
"""Probes of every row of the map, as they are in their files."""


def probes_by_row(source: Path | None, categories: Sequence[str], wanted: Sequence[str]) -> Probes:
    """Reads the probes of each of k rows (`general` last) in a random order, so that the first ones are not easier.

    Args:
        source: folder or file; None for the shipped probes.
        wanted: only these categories; all where it is empty.

    Raises:
        DataError: a file cannot be read, or there is no probe of a wanted category.
    """
    folder = probes_folder() if source is None else source
    files = [folder] if folder.is_file() else sorted(folder.glob("*.jsonl"))
    found = [record.values for file in files for record in json_lines(file)]
    random.Random(0).shuffle(found)
    names = {str(probe.get("category")) for probe in found}
    for name in wanted or (() if found else ("any category",)):
        if name not in names:
            raise DataError(f"{folder}: holds no probe of '{name}'{allowed_values(name, sorted(names))}")
    rows = [name if name in categories else GENERAL for name in (str(probe.get("category")) for probe in found)]
    return tuple(
        tuple(p for p, row in zip(found, rows, strict=True) if row == name and (not wanted or p["category"] in wanted))
        for name in dict.fromkeys((*categories, GENERAL))
    )


def bars_of(config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, probes: Probes) -> Bars:
    """Quality that the new expert has to exceed in every category under the default policy.

    Args:
        evidence: (k, m) of the router's experts, in their order.
    """
    rows, policy = np.arange(len(evidence.quality)), router.policy("default")
    now = np.array([policy.expert_of(row)[0] for row in rows.tolist()])
    room = np.array([0 if row in policy.pins else len(probes[row]) for row in rows], dtype=np.float64)
    level = evidence.quality[rows, now].astype(np.float64) + dearer(config, router, evidence, expert, now)
    return Bars(level, evidence.stderr[rows, now].astype(np.float64), room)


def dearer(
    config: CoeConfig, router: Router, evidence: QualityMatrix, expert: str, now: NDArray[np.int64]
) -> Float64Array:
    """(k,) how much more the expert costs than who serves, in quality at the prices of the default policy's budgets.

    Its answers are taken to be as long and as slow as those of the others: none was seen yet.
    """
    columns = {
        name: array if array.ndim == 1 else np.column_stack([array, array.mean(axis=1)])
        for name, array in evidence.arrays().items()
    }
    joined = QualityMatrix(**columns)
    costs = expert_costs([config.experts[name] for name in (*router.experts, expert)], joined)
    policy = router.policy("default")
    solved = solve_map(
        cautious_quality(joined), joined.mass, costs, config.policies["default"].budgets, dict(policy.pins)
    )
    if solved.stand_ins is None:
        return np.zeros(len(now))
    tolls = solved.stand_ins.tolls
    return np.asarray(tolls[:, -1] - tolls[np.arange(len(now)), now])


@dataclass(frozen=True)
class Asking:
    """The new expert, where it is asked, and the folder of its outcome table. `said` is what each round printed, the
    last of all answers so far."""

    expert: str
    base_url: str
    config: Path
    out: Path
    categories: tuple[str, ...]
    probes: Probes
    said: list[str] = field(default_factory=list)

    def __call__(self, asked: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Has so many probes of each row (1, k) asked in all. Returns sums and counts of their scores, (1, k) each.

        Raises:
            DataError: `coe eval collect` failed.
        """
        chosen = [p for row, n in zip(self.probes, asked[0], strict=True) for p in row[: int(n)]]
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "asked.jsonl"
        file.write_text("".join(json.dumps(probe) + "\n" for probe in chosen), encoding="utf-8")
        words = coe_command("eval", "collect", "--base-url", self.base_url, "--experts", self.expert)
        words += ["--experts-file", str(self.config), "--out", str(self.out), "--probes", str(file)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, text=True)
        self.said.append(done.stdout)
        if done.returncode != 0:
            ended = f"`coe eval collect` ended with status {done.returncode}, see above"
            raise DataError(f"'{self.expert}' could not be probed: {ended}")
        table = self.table()
        sums, _, counts = cell_sums(table.scores, row_numbers(table, self.categories), len(self.categories))
        return sums.T, counts.T

    def table(self) -> OutcomeTable:
        """All that was graded so far."""
        return read_outcomes(self.out, experts=(self.expert,), keep_partial=True)


def held_back(joined: QualityMatrix, reference: int, is_proven: NDArray[np.bool_]) -> QualityMatrix:
    """The matrix with its last column held below the reference by more than the error where nothing is proven (k,).

    So a map without budgets gives it none of those categories, even where it becomes the reference itself: the others
    lead by more than the error there. Its counts are the fewest of the others', so that a category that was asked more
    does not decide who is the reference.
    """
    error = np.hypot(joined.stderr[:, -1], joined.stderr[:, reference])
    ceiling = np.clip(joined.quality[:, reference] - error - BELOW_REFERENCE, 0.0, 1.0)
    quality, count = joined.quality.copy(), joined.count.copy()
    quality[:, -1] = np.where(is_proven, quality[:, -1], np.minimum(quality[:, -1], ceiling))
    count[:, -1] = np.maximum(count[:, :-1].min(axis=1), BROAD * is_proven)
    return replace(joined, quality=quality, count=count)
