"""A host on a fake clock that serves traced arrivals with the gateway's own residency scheduler.

Times are in seconds of the trace. A request waits for its engine to be awake and for a slot, never for others' work.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.residency.demand import Demand, Float64Array
from fleet.residency.memory import SLEEPER_GIB, Memory, Resident, sleep_state
from fleet.residency.policies import Off, OnDemand, Regret, RegretOptions
from fleet.residency.scheduler import Goal, Policy, Scheduler, Step
from fleet.residency.types import Residency, published_times
from router.hosting import hosted_experts

GIB_PER_B = 2e9 / 2**30
"""BF16."""

CACHE_GIB = 4.0
LOOK_EVERY_S = 5.0
SLOTS = 16
SERVICE_S = 3.0
"""Mean service of an 8B model; of others by the square root of their size (ours)."""

LEAST_PROMPTS = 60
SHRINK = 10.0
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Qualities of m experts on k categories: `predicted` from train and valid prompts, `true` from test prompts."""

    name: str
    experts: tuple[str, ...]
    params_b: tuple[float, ...]
    predicted: Float64Array
    true: Float64Array
    mass: Float64Array


def load_table(data: Path, name: str, source: str, experts: Sequence[str] | None, most_b: float) -> Table:
    """A table of a source; `experts` None: every one of open weights and known size up to `most_b`."""
    import pyarrow.parquet as pq

    sizes = {row["model"]: row["params_total_b"] for row in pq.read_table(data / "models.parquet").to_pylist()}
    columns = ["prompt_id", "benchmark", "category", "split"]
    prompts = {
        row["prompt_id"]: row for row in pq.read_table(data / source / "prompts.parquet", columns=columns).to_pylist()
    }
    scores = pq.read_table(data / source / "scores.parquet", columns=["prompt_id", "model", "score"]).to_pylist()
    listed = experts or sorted({row["model"] for row in scores})
    names = tuple(each for each in listed if sizes.get(each) and sizes[each] <= most_b)
    number = {each: index for index, each in enumerate(names)}
    counts: dict[str, int] = {}
    for row in prompts.values():
        counts[row["category"]] = counts.get(row["category"], 0) + 1
    label = {
        key: row["category"] if counts[row["category"]] >= LEAST_PROMPTS else f"other {row['benchmark']}"
        for key, row in prompts.items()
    }
    categories = {each: index for index, each in enumerate(sorted(set(label.values())))}
    sums = np.zeros((2, 2, len(categories), len(names)))
    for row in scores:
        if row["model"] in number:
            part = int(prompts[row["prompt_id"]]["split"] == "test")
            cell = (categories[label[row["prompt_id"]]], number[row["model"]])
            sums[(part, 0, *cell)] += row["score"]
            sums[(part, 1, *cell)] += 1
    keep = (sums[:, 1] > 0).all(axis=(0, 2))
    sums = sums[:, :, keep]
    means = sums[0, 0].sum(axis=0) / sums[0, 1].sum(axis=0)
    predicted = (sums[0, 0] + SHRINK * means) / (sums[0, 1] + SHRINK)
    mass = sums[1, 1].max(axis=1)
    return Table(
        name, names, tuple(float(sizes[each]) for each in names), predicted, sums[1, 0] / sums[1, 1], mass / mass.sum()
    )


@dataclass(frozen=True)
class Arrivals:
    """n requests in order of time: when, of which category, and how much service each takes (mean 1)."""

    at_s: Float64Array
    category: IntArray
    work: Float64Array


def load_trace(file: Path) -> dict[str, tuple[Float64Array, Float64Array]]:
    """Client -> start of its windows (s), and their requests per second and burstiness (2, w)."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    clients = np.array(table["client"].to_pylist())
    start = table["start_s"].to_numpy().astype(float)
    rates = np.stack([table["requests_per_s"].to_numpy(), table["cv"].to_numpy()]).astype(float)
    return {str(each): (start[clients == each], rates[:, clients == each]) for each in np.unique(clients)}


def draw_arrivals(
    trace: Mapping[str, tuple[Float64Array, Float64Array]],
    mass: Float64Array,
    *,
    days: tuple[float, float],
    per_s: float,
    clients: int,
    focus: float,
    drifts: bool,
    seed: int,
) -> Arrivals:
    """Arrivals with the rates and burstiness of some of the clients, scaled to a mean of `per_s`.

    Each client has a category of its own for a share `focus` of its requests and draws the others from `mass`; with
    `drifts` it changes its own halfway.
    """
    rng = np.random.default_rng(seed)
    first_s, last_s = (day * 86400.0 for day in days)
    present = [each for each, (at, _) in trace.items() if ((at >= first_s) & (at < last_s)).any()]
    chosen = [trace[present[number]] for number in rng.permutation(len(present))[:clients]]
    total = sum(float(rates[0, (at >= first_s) & (at < last_s)].sum()) * 600 for at, rates in chosen)
    scale = per_s * (last_s - first_s) / total
    times, categories = [], []
    for at, rates in chosen:
        inside = (at >= first_s) & (at < last_s)
        own = rng.integers(len(mass), size=2)
        expected = np.concatenate([[0.0], np.cumsum(rates[0, inside]) * 600 * scale])
        if expected[-1] <= 0:
            continue
        variance = float(np.clip(np.median(rates[1, inside]), 0.3, 8.0)) ** 2
        n = int(expected[-1] * 1.5 + 20 * (1 + variance))
        points = np.cumsum(rng.gamma(1 / variance, variance, size=n)) - rng.uniform()
        points = points[(points > 0) & (points < expected[-1])]
        edges = np.concatenate([at[inside], [at[inside][-1] + 600]])
        found = np.interp(points, expected, edges)
        is_own = rng.uniform(size=len(found)) < focus
        half = found > (first_s + last_s) / 2 if drifts else np.zeros(len(found), dtype=bool)
        others = rng.choice(len(mass), size=len(found), p=mass)
        categories.append(np.where(is_own, own[half.astype(int)], others))
        times.append(found)
    when = np.concatenate(times)
    order = np.argsort(when, kind="stable")
    work = rng.lognormal(-0.5, 1.0, size=len(when))
    return Arrivals(when[order], np.concatenate(categories)[order], work)


def host_of(table: Table, fits: float) -> tuple[tuple[Resident, ...], Memory]:
    """An engine an expert, and a GPU's worth of memory in which `fits` of mean size are awake beside the sleepers."""
    residents = tuple(
        Resident(name, GIB_PER_B * size + CACHE_GIB, GIB_PER_B * size, published_times(size), (name,))
        for name, size in zip(table.experts, table.params_b, strict=True)
    )
    mean = float(np.mean([each.awake_gib for each in residents]))
    largest = max(each.awake_gib for each in residents)
    gib = max(fits * mean, largest) + SLEEPER_GIB * (len(residents) - fits)
    return residents, Memory({"0": gib}, host_gib=2 * gib)


def static_set(table: Table, residents: Sequence[Resident], gib: float, counts: Float64Array) -> tuple[str, ...]:
    """The experts of highest mean predicted quality for a mix of categories (k,) that fit in memory; none sleep."""
    rows = np.repeat(np.arange(len(counts)), np.ceil(400 * counts / counts.sum()).astype(int))
    sizes = np.array([each.awake_gib for each in residents])
    chosen = hosted_experts(table.predicted[rows], sizes, [gib])[0]
    return tuple(each.name for each, is_in in zip(residents, chosen, strict=True) if is_in)


def first_states(
    residents: Sequence[Resident], memory: Memory, awake: Sequence[str], *, starts_cold: bool
) -> dict[str, Residency]:
    """Some awake, and the others asleep as far as memory goes; stopped at a cold start."""
    states = {each.name: Residency.AWAKE if each.name in awake else Residency.STOPPED for each in residents}
    for each in residents:
        if each.name not in awake and not starts_cold:
            asleep = {**states, each.name: sleep_state(each, memory.host_free_gib(residents, states))}
            if not memory.excess_gib(residents, asleep):
                states = asleep
    return states


class ExpectedUse(OnDemand):
    """Evicts the engine whose categories are expected least (decaying mean of requests by category)."""

    def __init__(self, n_residents: int, memory_s: float) -> None:
        super().__init__(n_residents)
        self._m, self._demand = n_residents, Demand(n_residents, memory_s, 0.0, uses_hours=False)

    def note(self, now_s: float, category: str, quality: Float64Array, served: int, begins: bool | None) -> None:
        self._demand.note(now_s, category, quality)

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        weights, rows = self._demand.rows(now_s)
        used = np.bincount(rows.argmax(axis=1), weights=weights, minlength=self._m) if len(rows) else np.zeros(self._m)
        return np.where(view.mask, used + 1e-9, 0.0)


class FarthestNextUse(OnDemand):
    """Evicts the engine that is needed again last (clairvoyant)."""

    def __init__(self, needed_at_s: Sequence[Float64Array]) -> None:
        super().__init__(len(needed_at_s))
        self._needed_at_s = needed_at_s

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        found = np.zeros(len(self._needed_at_s))
        for number, times in enumerate(self._needed_at_s):
            place = int(np.searchsorted(times, now_s, side="right"))
            if view.mask[number]:
                found[number] = 1 / (1 + (times[place] - now_s if place < len(times) else 1e12))
        return found


@dataclass
class Tally:
    """Of each request: who served it and how long it waited; of the host: changes and their seconds."""

    served: IntArray
    wait_s: Float64Array
    switches: int = 0
    first_switches: int = 0
    switch_s: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


class Host:
    """Serves arrivals. `stalls`: no request starts while an engine changes its state, as if copying took the GPU."""

    def __init__(
        self, table: Table, scheduler: Scheduler, arrivals: Arrivals, *, on_demand: bool, stalls: bool
    ) -> None:
        self._table, self._scheduler, self._arrivals = table, scheduler, arrivals
        self._on_demand, self._stalls = on_demand, stalls
        self._queues: list[deque[int]] = [deque() for _ in table.experts]
        self._parked: list[list[int]] = [[] for _ in table.experts]
        self._busy = [0] * len(table.experts)
        self._events: list[tuple[float, int, int]] = []
        self._looked_at_s = -np.inf
        self._seconds = [SERVICE_S * (size / 8.0) ** 0.5 for size in table.params_b]
        n = len(arrivals.at_s)
        self.tally = Tally(np.full(n, -1), np.zeros(n))
        self._names = [f"category {number}" for number in range(len(table.predicted))]
        self._best = table.predicted.argmax(axis=1)

    def run(self, counts_from_s: float) -> Tally:
        """Serves all arrivals; changes before `counts_from_s` are not counted."""
        self._counts_from_s = counts_from_s
        times = self._arrivals.at_s.tolist()
        self._look(times[0])
        for request, now_s in enumerate(times):
            while self._events and self._events[0][0] <= now_s:
                self._event()
            self._arrive(request, now_s)
            if now_s - self._looked_at_s >= LOOK_EVERY_S:
                self._look(now_s)
        while self._events:
            self._event()
        return self.tally

    def _event(self) -> None:
        at_s, kind, number = heapq.heappop(self._events)
        if kind == 0:
            self._scheduler.finished(at_s)
            if self._scheduler.mask[number]:
                self._queues[number].extend(self._parked[number])
                self._parked[number] = []
            for each in range(len(self._queues)) if self._stalls else (number,):
                self._fill(each, at_s)
            self._look(at_s)
        else:
            self._busy[number] -= 1
            self._scheduler.ended(self._table.experts[number])
            self._fill(number, at_s)
            if self._scheduler.goal is not None and self._scheduler.under_way is None:
                self._look(at_s)

    def _arrive(self, request: int, now_s: float) -> None:
        if self._on_demand or not self._scheduler.mask.any():  # as in the gateway, who finds nobody awake waits
            number = int(self._best[self._arrivals.category[request]])
            self._give(request, number, now_s)
            if self._scheduler.under_way is None and not self._scheduler.mask[number]:
                self._look(now_s)
        else:
            self._place(request, now_s)

    def _place(self, request: int, now_s: float) -> None:
        quality = self._table.predicted[self._arrivals.category[request]]
        self._give(request, int(np.where(self._scheduler.mask, quality, -1.0).argmax()), now_s)

    def _give(self, request: int, number: int, now_s: float) -> None:
        category = self._arrivals.category[request]
        name = self._table.experts[number]
        self._scheduler.note(now_s, self._names[category], self._table.predicted[category], name)
        self.tally.served[request] = number
        if self._scheduler.mask[number]:
            self._scheduler.started(name)
            self._queues[number].append(request)
        elif self._scheduler.ask(now_s, name):
            self._parked[number].append(request)
        self._fill(number, now_s)

    def _fill(self, number: int, now_s: float) -> None:
        queue, awake = self._queues[number], self._scheduler.state(self._table.experts[number]) is Residency.AWAKE
        if self._stalls and self._scheduler.under_way is not None:
            return
        while queue and awake and self._busy[number] < SLOTS:
            request = queue.popleft()
            self.tally.wait_s[request] = now_s - self._arrivals.at_s[request]
            self._busy[number] += 1
            end_s = now_s + self._seconds[number] * self._arrivals.work[request]
            heapq.heappush(self._events, (end_s, 1, number))

    def _look(self, now_s: float) -> None:
        self._looked_at_s = now_s
        step = self._scheduler.step(now_s)
        if step is None:
            return
        number = self._scheduler.index[step.resident]
        took_s = self._took_s(step, number)
        if now_s >= self._counts_from_s:
            self._count(step, self._scheduler.goal, took_s)
        heapq.heappush(self._events, (now_s + took_s, 0, number))

    def _took_s(self, step: Step, number: int) -> float:
        times = self._scheduler.residents[number].times
        if step.state is Residency.AWAKE:
            return times.wake_s(self._scheduler.state(step.resident))
        return times.sleep_s(step.state)

    def _count(self, step: Step, goal: Goal | None, took_s: float) -> None:
        self.tally.switch_s += took_s
        if step.state is Residency.AWAKE and goal is not None:
            self.tally.switches += 1
            self.tally.reasons[goal.reason] = self.tally.reasons.get(goal.reason, 0) + 1


@dataclass(frozen=True)
class Case:
    """One table, host and draw of arrivals; figures count from `from_s` on."""

    table: Table
    fits: float
    arrivals: Arrivals
    from_s: float
    starts_cold: bool = False
    stalls: bool = False


POLICIES = ("regret", "static", "static in hindsight", "lru", "expected use", "farthest next use", "all awake")


def policy_of(kind: str, case: Case, residents: tuple[Resident, ...], options: RegretOptions) -> Policy:
    needs = case.table.predicted.argmax(axis=1)[case.arrivals.category]
    if kind == "regret":
        return Regret(residents, float(case.arrivals.at_s[0]), options)
    if kind in ("static", "static in hindsight", "all awake"):
        return Off()
    if kind == "lru":
        return OnDemand(len(residents))
    if kind == "expected use":
        return ExpectedUse(len(residents), options.memory_s)
    return FarthestNextUse([case.arrivals.at_s[needs == number] for number in range(len(residents))])


def simulate(case: Case, kind: str, options: RegretOptions) -> dict[str, Any]:
    """Figures of a policy on a case. All start with the set that is best for the mix of the table's own prompts, as the
    map is solved for before there is a log, or with nothing awake; "in hindsight" with that for the mix measured."""
    residents, memory = host_of(case.table, case.fits)
    counted = case.arrivals.at_s >= case.from_s
    k = len(case.table.predicted)
    during = np.bincount(case.arrivals.category[counted], minlength=k).astype(float)
    gib = memory.device_gib["0"]
    if kind == "all awake":
        memory = Memory({"0": sum(each.awake_gib for each in residents)}, memory.host_gib)
        awake: Sequence[str] = case.table.experts
    else:
        mix = during if kind == "static in hindsight" else case.table.mass
        awake = static_set(case.table, residents, gib, mix) if "static" in kind or not case.starts_cold else ()
    states = first_states(residents, memory, awake, starts_cold=case.starts_cold)
    hold = 0.0 if kind in ("lru", "expected use", "farthest next use") else 2.0
    policy = policy_of(kind, case, residents, options)
    scheduler = Scheduler(residents, memory, policy, states, hold_cycles=hold)
    on_demand = kind in ("lru", "expected use", "farthest next use")
    tally = Host(case.table, scheduler, case.arrivals, on_demand=on_demand, stalls=case.stalls).run(case.from_s)
    category, served, wait_s = case.arrivals.category[counted], tally.served[counted], tally.wait_s[counted]
    ideal = case.table.predicted.argmax(axis=1)
    lost = case.table.true[category, ideal[category]] - case.table.true[category, served]
    by_category = np.bincount(category, weights=lost, minlength=k) / np.maximum(during, 1)
    n = int(counted.sum())
    return {
        "requests": n,
        "switches": 1000 * tally.switches / n,
        "quality": float(case.table.true[category, served].mean()),
        "wait_s": [float(each) for each in np.percentile(wait_s, [50, 95, 99])],
        "worst_loss": float(by_category[during >= 20].max()),
        "switch_s": tally.switch_s,
        "seconds": float(case.arrivals.at_s[-1] - case.from_s),
        "reasons": tally.reasons,
    }
