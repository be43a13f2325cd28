"""The map under budgets: an expert for every row, by a mixed-integer program. Pure. Shapes: k rows (categories,
`general` among them), m experts, g host groups (experts that share a base's weights)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.base.extras import require_installed
from coe.router.config.policy import QUALITY_FLOOR, Budgets, Floor
from coe.router.policy.budget_price import LEAST_LIMIT, SLACK, Amounts, relative_price
from coe.router.policy.fallbacks import Fallbacks, fallbacks
from coe.router.policy.hosting import Memory, kept_in_memory
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TIE_BREAK = 1e-6
"""Weight of normalized active parameters in the objective (ours). The smaller of equal experts serves, and no measured
difference in quality is that small."""


@dataclass(frozen=True)
class ExpertCosts:
    """Costs of each of m experts. Zero means free or unknown.

    `own_params_b` (m,) is hosted only for this expert, `group` (m,) numbers the base it shares, `group_params_b` (g,)
    is hosted once per base. `active_params_b` (m,); `cost_usd` and `latency_ms` (k, m) per query of a category.
    """

    own_params_b: FloatArray
    group: IntArray
    group_params_b: FloatArray
    active_params_b: FloatArray
    cost_usd: FloatArray
    latency_ms: FloatArray

    @property
    def memory(self) -> Memory:
        return Memory(self.own_params_b, self.group, self.group_params_b)

    def per_query(self) -> Amounts:
        """Return the cost of one query in every budget on an average: (m,), or (k, m) by category."""
        return {
            "active_params_b": self.active_params_b.astype(np.float64),
            "cost_usd": self.cost_usd.astype(np.float64),
            "latency_ms": self.latency_ms.astype(np.float64),
        }


@dataclass(frozen=True)
class MapSolution:
    """`expert_of` (k,): the expert number of each category, pins included. `used` and `binding` name budgets as
    `Budgets` does. `fallbacks` says who else may serve; None: everybody, by predicted quality."""

    expert_of: IntArray
    quality: float
    used: Mapping[str, float]
    binding: tuple[str, ...]
    fallbacks: Fallbacks | None = None


@dataclass(frozen=True)
class MapProgram:
    """The mixed-integer program of Composition of Experts (arXiv 2412.01868), with shared bases (ours).

    Variables are all 0/1. x[c,e] (k*m): category c goes to e; y[e] (m): e is hosted; z[b] (g): base b is hosted.
    `group` (m) is the base of each expert. If hosting does not matter, y and z are left out. `pins` (category ->
    expert) fix x[c,e] = 1.
    """

    n_categories: int
    n_experts: int
    objective: Float64Array
    budget_rows: Mapping[str, Float64Array]
    group: IntArray
    pins: Mapping[int, int] = field(default_factory=dict)

    @property
    def least(self) -> Float64Array:
        """The least value of each variable."""
        bound = np.zeros(len(self.objective))
        bound[[c * self.n_experts + e for c, e in self.pins.items()]] = 1
        return bound

    @property
    def cheapest(self) -> MapProgram:
        """The same program with the price as objective: USD, or active parameters if nothing has a price. The best of
        equally cheap maps wins."""
        return replace(self, objective=relative_price(self.budget_rows) + TIE_BREAK * self.objective)

    def minimise(self, objective: Float64Array, limits: Mapping[str, float]) -> Float64Array | None:
        """Return the solution (k*m + m + g,), or None if the limits exclude every map. If hosting is neither limited
        nor minimized, y and z are left at 0, and so is each dominated x: among ten thousand experts some ten remain in
        a category."""
        require_installed("a policy with budgets", "scipy")
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        k, m = self.n_categories, self.n_experts
        rows = [(csr_array(one_expert_each(k, m, len(objective))), 1.0, 1.0)]
        columns = np.arange(len(objective))
        if "hosted_params_b" in limits or objective[k * m :].any():
            rows.append((hosting_links(k, self.group, len(objective)), -np.inf, 0.0))
        else:
            columns = self.undominated(objective, list(limits), np.ones(m, dtype=bool))
        for name, limit in limits.items():
            # The slack admits a map that meets the limit exactly: sizes and masses are float32.
            unit = unit_of(limit, self.budget_rows[name])
            rows.append((csr_array(self.budget_rows[name][None, :] / unit), -np.inf, limit / unit + SLACK))
        with clean_standard_output():
            result = milp(
                objective[columns],
                constraints=[LinearConstraint(row[:, columns], low, high) for row, low, high in rows],
                bounds=Bounds(self.least[columns], 1),
                integrality=np.ones(len(columns)),
            )
        if result.x is None:
            return None
        found = np.zeros(len(objective))
        found[columns] = np.round(result.x)
        return found

    def undominated(self, objective: Float64Array, names: Sequence[str], allowed: BoolArray) -> IntArray:
        """Return the places of the x that are pinned or undominated; an optimum over these is one over all. An x is
        dominated if another allowed expert (m,) in its category equals or beats it in the objective and in every budget
        of those names."""
        k, m = self.n_categories, self.n_experts
        amounts = np.stack([objective, *(self.budget_rows[name] for name in names)])[:, : k * m].reshape(-1, k, m)
        experts = np.flatnonzero(allowed)
        best = [c * m + experts[frontier(amounts[:, c, experts])] for c in range(k)]
        return np.union1d(np.concatenate(best), np.flatnonzero(self.least[: k * m]))


def frontier(amounts: Float64Array) -> IntArray:
    """Return the places of the columns of amounts (d, m) that no other column equals or is below in all d rows."""
    left, kept = np.lexsort(amounts[::-1]), list[int]()  # what is below another one in all rows comes before it
    while len(left):
        kept.append(int(left[0]))
        left = left[(amounts[:, left] < amounts[:, left[:1]]).any(axis=0)]
    return np.array(kept)


def unit_of(limit: float, row: Float64Array) -> float:
    """Return the divisor of a budget's amounts: the solver's tolerances are absolute and a cost may be 1e-5 USD. It is
    the limit, or for a limit of 0 the least amount above 0. A floor of quality is in units of quality."""
    if limit < 0:
        return 1.0
    return limit if limit > LEAST_LIMIT else max(float(row[row > 0].min(initial=1.0)), LEAST_LIMIT)


@contextmanager
def clean_standard_output() -> Iterator[None]:
    """Redirect what native code prints to standard error, because standard output may be JSON. HiGHS 1.12, the one in
    SciPy 1.17, prints a line of its debugging when it repairs a solution; no option silences it. This holds on the main
    thread only, where commands run: in a server other threads write to standard output meanwhile."""
    if threading.current_thread() is not threading.main_thread() or None in (sys.stdout, sys.stderr):
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def one_expert_each(k: int, m: int, width: int) -> Float64Array:
    """Return the rows (k, width) of sum_e x[c,e] = 1."""
    return np.pad(np.repeat(np.eye(k), m, axis=1), ((0, 0), (0, width - k * m)))


def hosting_links(k: int, group: IntArray, width: int) -> csr_array:
    """Return sparse rows (k*m + m, width) of x[c,e] <= y[e] and y[e] <= z[base of e], with two entries each."""
    from scipy.sparse import csr_array

    m = len(group)
    pairs, experts = np.arange(k * m), np.arange(m)
    columns = np.concatenate([pairs, k * m + experts, k * m + pairs % m, k * m + m + group])
    rows = np.tile(np.concatenate([pairs, k * m + experts]), 2)
    values = np.repeat([1.0, -1.0], len(rows) // 2)
    return csr_array((values, (rows, columns)), shape=(k * m + m, width))


def map_program(
    quality: FloatArray, mass: FloatArray, costs: ExpertCosts, pins: Mapping[int, int] | None = None
) -> MapProgram:
    """Build the program for a quality matrix (k, m) and the traffic's mix `mass` (k,), which sums to 1."""
    k, m = quality.shape
    g = len(costs.group_params_b)
    rest = np.zeros(m + g)
    scale = max(float(costs.active_params_b.max(initial=0.0)), 1e-12)
    gain = mass[:, None] * (quality - TIE_BREAK * costs.active_params_b[None, :] / scale)

    def average(per_query: NDArray[np.floating]) -> Float64Array:
        return np.concatenate([(mass[:, None] * np.broadcast_to(per_query, (k, m))).ravel(), rest])

    rows = {
        "active_params_b": average(costs.active_params_b),
        "cost_usd": average(costs.cost_usd),
        "latency_ms": average(costs.latency_ms),
        "hosted_params_b": np.concatenate([np.zeros(k * m), costs.own_params_b, costs.group_params_b]),
        QUALITY_FLOOR: -average(quality),
    }
    return MapProgram(k, m, -np.concatenate([gain.ravel(), rest]), rows, costs.group, pins=pins or {})


def solve_map(
    quality: FloatArray,
    mass: FloatArray,
    costs: ExpertCosts,
    budgets: Budgets,
    pins: Mapping[int, int] | None = None,
    floor: Floor | None = None,
) -> MapSolution:
    """Solve for the map of highest mean quality that keeps every budget and pin; with a floor, for the cheapest map.

    Args:
        quality: (k, m) expected score in [0, 1].
        mass: (k,) share of queries per category; need not be normalized.
        pins: category -> expert, by number; what they cost counts against the budgets.

    Raises:
        InfeasibleBudgetError: names the budget or floor that cannot be kept and the smallest value that would do.
    """
    mass = np.asarray(mass / max(float(mass.sum()), 1e-12), dtype=np.float32)
    best = program = map_program(quality, mass, costs, pins)
    bounds = limits = budgets.model_dump(exclude_none=True)
    k, m = quality.shape
    if floor is not None:
        program, bounds = best.cheapest, {QUALITY_FLOOR: -floor.least, **limits}
    if bounds:
        solution = program.minimise(program.objective, bounds)
        if solution is None:
            raise infeasible_budget(program, bounds, floor)
        expert_of = solution[: k * m].reshape(k, m).argmax(axis=1)
    else:  # each category on its own: the same map, without loading a solver
        expert_of = (-program.objective[: k * m]).reshape(k, m).argmax(axis=1)
        expert_of[list(program.pins)] = list(program.pins.values())
    chosen = as_variables(expert_of, costs, m)
    used = {name: float(row @ chosen) for name, row in best.budget_rows.items() if name != QUALITY_FLOOR}
    binding = tuple(name for name in bounds if binds(program, bounds, name, chosen))
    others = map_fallbacks(best, limits, expert_of, mass @ quality, costs) if limits else None
    return MapSolution(expert_of, float((mass * quality[np.arange(k), expert_of]).sum()), used, binding, others)


def map_fallbacks(
    program: MapProgram,
    limits: Mapping[str, float],
    expert_of: IntArray,
    mean_quality: NDArray[np.floating],
    costs: ExpertCosts,
) -> Fallbacks:
    """Return experts that may stand in for those of a map. Their prices are those of the program's linear relaxation
    over the experts that are kept in memory."""
    hosted = np.isin(np.arange(program.n_experts), expert_of)
    most = limits.get("hosted_params_b")
    if most is not None:
        hosted = kept_in_memory(hosted, mean_quality, costs.memory, most)
    else:
        hosted = np.ones(program.n_experts, dtype=bool)
    prices = relaxed_prices(program, limits, hosted)
    return fallbacks(costs.per_query(), limits, hosted, prices, program.n_categories)


def relaxed_prices(program: MapProgram, limits: Mapping[str, float], hosted: BoolArray) -> dict[str, float]:
    """Return the quality that one unit of each budget on an average buys; 0 if a limit does not bind. A mixed-integer
    program has no multipliers, so these are of its linear relaxation over the hosted experts (m,)."""
    from scipy.optimize import linprog

    averages = [name for name in limits if name != "hosted_params_b"]
    if not averages:
        return {}
    columns = program.undominated(program.objective, averages, hosted)
    units = np.array([unit_of(limits[name], program.budget_rows[name]) for name in averages])
    one_each = one_expert_each(program.n_categories, program.n_experts, len(program.objective))
    found = linprog(
        program.objective[columns],
        A_ub=np.stack([program.budget_rows[name][columns] for name in averages]) / units[:, None],
        b_ub=np.array([limits[name] for name in averages]) / units + SLACK,
        A_eq=one_each[:, columns],
        b_eq=np.ones(program.n_categories),
        bounds=np.column_stack([program.least[columns], np.ones(len(columns))]),
    )
    if found.x is None:  # the solver's tolerance; the map itself keeps the limits
        return dict.fromkeys(averages, 0.0)
    return dict(zip(averages, (np.maximum(-found.ineqlin.marginals, 0.0) / units).tolist(), strict=True))


def as_variables(expert_of: IntArray, costs: ExpertCosts, m: int) -> Float64Array:
    """Return a map as the program's variables, hosting only what it uses."""
    k = len(expert_of)
    x, y, z = np.zeros((k, m)), np.zeros(m), np.zeros(len(costs.group_params_b))
    x[np.arange(k), expert_of] = 1
    y[expert_of] = 1
    z[costs.group[expert_of]] = 1
    return np.concatenate([x.ravel(), y, z])


def binds(program: MapProgram, limits: Mapping[str, float], name: str, chosen: Float64Array) -> bool:
    """Return whether the map would be better without that budget (a MILP has no duals, so it is solved again)."""
    freed = program.minimise(program.objective, {n: v for n, v in limits.items() if n != name})
    return freed is not None and bool(program.objective @ freed < program.objective @ chosen - TIE_BREAK)


def infeasible_budget(
    program: MapProgram, limits: Mapping[str, float], floor: Floor | None = None
) -> InfeasibleBudgetError:
    """Return an error that names the budget which cannot be kept beside the others. If they exclude each other, it is
    the first that cannot be kept beside those before it."""
    names = list(limits)
    beside_all = [(name, [other for other in names if other != name]) for name in names]
    beside_those_before = [(name, names[:i]) for i, name in enumerate(names)]
    for name, rest in beside_all + beside_those_before:
        row = program.budget_rows[name]
        least = program.minimise(row / unit_of(limits[name], row), {n: limits[n] for n in rest})
        if least is not None and row @ least > limits[name] + abs(limits[name]) * SLACK / 2:
            found = float(row @ least)
            if name == QUALITY_FLOOR and floor is not None:
                return floor.refused(-found)
            return InfeasibleBudgetError(name, limits[name], found)
    raise AssertionError("an infeasible program has a budget that cannot be kept")
