"""Counts decisions that flip. Shapes: n texts, m experts, q cases."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.robustness.flip_records import FamilyFlips, FlippedCase, Flips, Move, RobustnessRecord
from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.shares import Z_95
from coe.eval.metrics.intervals import rate
from coe.router.types import FloatArray, Metric, RoutingDecision

FAMILIES = "benchmarks.robustness.families"


Family = Callable[[str, np.random.Generator], Mapping[str, str]]
"""Changes a text in every way of one family, by the name of what was done, such as `upper` of the family `case`; fewer
where some do not apply, none where nothing does. Pure: randomness comes from the generator alone."""


@dataclass(frozen=True, slots=True)
class Case:
    """One changed text of one family."""

    family: str
    template: str
    text: str


def family_names() -> tuple[str, ...]:
    """All families, sorted."""
    found = pkgutil.iter_modules(importlib.import_module(FAMILIES).__path__)
    return tuple(sorted(each.name for each in found if not each.name.startswith("_")))


def build_families(names: Sequence[str] | None = None) -> dict[str, Family]:
    """Families by name; None means all.

    Raises:
        ConfigError: an unknown name.
    """
    known = family_names()
    for name in names or ():
        if name not in known:
            raise ConfigError(f"unknown family of perturbations '{name}'{allowed_values(name, known)}")
    wanted = known if names is None else names
    return {name: importlib.import_module(f"{FAMILIES}.{name}").variants for name in wanted}


def make_cases(text: str, seed: int, families: dict[str, Family], per_family: int | None = None) -> tuple[Case, ...]:
    """Cases of one text; those that equal the text, or another case of the same family, are left out.

    Args:
        per_family: at most so many of each family, drawn without replacement; None keeps all.
    """
    cases: list[Case] = []
    for name, family in families.items():
        rng = text_rng(seed, name, text)
        template_of = {changed: template for template, changed in family(text, rng).items() if changed != text}
        found = [Case(name, template, changed) for changed, template in template_of.items()]
        if per_family is not None and len(found) > per_family:
            found = [found[i] for i in sorted(rng.choice(len(found), size=per_family, replace=False))]
        cases.extend(found)
    return tuple(cases)


def text_rng(seed: int, family: str, text: str) -> np.random.Generator:
    """A generator of its own for every text and family."""
    digest = hashlib.sha256(f"{seed}\0{family}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


Decide = Callable[[Sequence[str]], Sequence[RoutingDecision]]

CASES_PER_FAMILY = 2
MOVES = 20
EXAMPLES_PER_FAMILY = 3
EXAMPLE_CHARS = 300


@dataclass(frozen=True)
class KnownScores:
    """Scores (n, m) of `experts` on the measured texts, NaN where unknown."""

    experts: tuple[str, ...]
    scores: FloatArray

    def change(self, text: int, before: str, after: str) -> float:
        """Score of the expert after minus that of the one before; NaN where either is unknown."""
        if before not in self.experts or after not in self.experts:
            return float("nan")
        row = self.scores[text]
        return float(row[self.experts.index(after)] - row[self.experts.index(before)])


@dataclass(frozen=True)
class Trial:
    """One case of text number `text`, with the decisions before and after the change."""

    text: int
    case: Case
    before: RoutingDecision
    after: RoutingDecision
    quality_change: float

    @property
    def is_expert_flip(self) -> bool:
        return self.before.expert != self.after.expert

    @property
    def is_category_flip(self) -> bool:
        return self.before.category != self.after.category


def measure_flips(
    decide: Decide,
    texts: Sequence[str],
    seed: int,
    families: Sequence[str] | None = None,
    *,
    cases_per_family: int | None = CASES_PER_FAMILY,
    known: KnownScores | None = None,
) -> RobustnessRecord:
    """Counts decisions that flip when the texts are changed and what is asked is not.

    Args:
        decide: one decision per text, in order. It must not explore, or its own dice are counted as flips.
        families: names of families; None means all.
        cases_per_family: at most so many cases of each family for one text, drawn; None takes all.
        known: scores of the experts on the texts, from which the cost of flips follows.

    Raises:
        ConfigError: an unknown family.
        DataError: there is no text, or no family changes any.
    """
    built = build_families(families)
    cases = [(i, case) for i, text in enumerate(texts) for case in make_cases(text, seed, built, cases_per_family)]
    if not cases:
        raise DataError(f"no case to measure: {len(texts)} texts, families {', '.join(built) or 'none'}")
    trials = decide_all(decide, texts, cases, known)
    return RobustnessRecord(
        seed=seed,
        cases_per_family=cases_per_family,
        n_texts=len(texts),
        n_cases=len(trials),
        overall=count_flips(trials),
        families={name: count_family(of(trials, name)) for name in built if of(trials, name)},
        moves=moves(trials),
        examples=tuple(example for name in built for example in examples(of(trials, name), texts)),
    )


def decide_all(
    decide: Decide, texts: Sequence[str], cases: Sequence[tuple[int, Case]], known: KnownScores | None
) -> list[Trial]:
    """Every text and case in one call; equal texts are decided once."""
    distinct = list(dict.fromkeys([*texts, *(case.text for _, case in cases)]))
    decided = dict(zip(distinct, decide(distinct), strict=True))
    trials = []
    for i, case in cases:
        before, after = decided[texts[i]], decided[case.text]
        change = float("nan") if known is None else known.change(i, before.expert, after.expert)
        trials.append(Trial(i, case, before, after, change))
    return trials


def of(trials: Sequence[Trial], family: str) -> list[Trial]:
    return [trial for trial in trials if trial.case.family == family]


def count_flips(trials: Sequence[Trial]) -> Flips:
    return Flips(
        n_texts=len({trial.text for trial in trials}),
        experts=share(trials, [trial.is_expert_flip for trial in trials]),
        categories=share(trials, [trial.is_category_flip for trial in trials]),
        quality_change=mean_change(trials),
    )


def count_family(trials: Sequence[Trial]) -> FamilyFlips:
    templates = dict.fromkeys(sorted(trial.case.template for trial in trials))
    parts = {name: [trial for trial in trials if trial.case.template == name] for name in templates}
    return FamilyFlips(
        **dict(count_flips(trials)),
        templates={name: share(part, [trial.is_expert_flip for trial in part]) for name, part in parts.items()},
    )


def share(trials: Sequence[Trial], flips: Sequence[bool]) -> Metric:
    """Share of the cases that flip; those of one text depend on each other, so all of a single text count once."""
    values, texts = np.array(flips, dtype=np.float64), np.array([trial.text for trial in trials])
    is_single = (texts == texts[0]).all()
    found = rate(values.mean(keepdims=True)) if is_single else rate(values, clusters=[texts])
    assert found is not None, "there is a case"
    return Metric.within(found.low, found.value, found.high, len(trials))


def mean_change(trials: Sequence[Trial]) -> Metric | None:
    """Mean change of the score, with the normal interval of a ratio of sums over texts."""
    scored = [trial for trial in trials if np.isfinite(trial.quality_change)]
    if not scored:
        return None
    _, number = np.unique([trial.text for trial in scored], return_inverse=True)
    sums = np.bincount(number, weights=[trial.quality_change for trial in scored])
    counts = np.bincount(number).astype(np.float64)
    mean, n = float(sums.sum() / counts.sum()), len(counts)
    half = Z_95 * float(np.sqrt(((sums - mean * counts) ** 2).sum() * n / max(n - 1, 1)) / counts.sum())
    return Metric.within(mean - half, mean, mean + half, len(scored))


def moves(trials: Sequence[Trial]) -> tuple[Move, ...]:
    found = Counter(
        (trial.before.category, trial.before.expert, trial.after.category, trial.after.expert)
        for trial in trials
        if trial.is_expert_flip or trial.is_category_flip
    )
    return tuple(
        Move(category=category, expert=expert, to_category=to_category, to_expert=to_expert, n=n)
        for (category, expert, to_category, to_expert), n in found.most_common(MOVES)
    )


def examples(trials: Sequence[Trial], texts: Sequence[str]) -> list[FlippedCase]:
    """The first flips, of different texts."""
    first = {trial.text: trial for trial in reversed(trials) if trial.is_expert_flip}
    return [
        FlippedCase(
            family=trial.case.family,
            template=trial.case.template,
            text=texts[trial.text][:EXAMPLE_CHARS],
            changed_text=trial.case.text[:EXAMPLE_CHARS],
            category=trial.before.category,
            expert=trial.before.expert,
            to_category=trial.after.category,
            to_expert=trial.after.expert,
        )
        for trial in [first[i] for i in sorted(first)][:EXAMPLES_PER_FAMILY]
    ]
