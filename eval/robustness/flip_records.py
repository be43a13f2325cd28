"""Records of stability: `robustness.json`, and `robustness` of report.json. Intervals are at 95%."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from router.types import Metric, Record


class Flips(Record):
    """Shares of cases whose decision differs from the decision for the unchanged text. `n` of a metric counts cases."""

    n_texts: int = Field(description="texts that have such a case")
    experts: Metric = Field(description="share that goes to another expert")
    categories: Metric = Field(description="share whose category differs, `general` being one")
    quality_change: Metric | None = Field(
        default=None, description="mean score after minus before; None where no outcome is known"
    )


class FamilyFlips(Flips):
    """One family; `templates` has the share of experts that flip under each way of changing a text."""

    templates: dict[str, Metric]


class Move(Record):
    """Cases that went from one category and expert to another."""

    category: str
    expert: str
    to_category: str
    to_expert: str
    n: int


class FlippedCase(Record):
    """One case that goes to another expert. Texts are cut."""

    family: str
    template: str
    text: str
    changed_text: str
    category: str
    expert: str
    to_category: str
    to_expert: str


class RobustnessRecord(Record):
    """Stability of a router on some texts."""

    seed: int
    cases_per_family: int | None = Field(description="most cases of one family for one text; None means all")
    n_texts: int
    n_cases: int
    overall: Flips
    families: dict[str, FamilyFlips]
    moves: tuple[Move, ...] = Field(description="most frequent first, at most twenty")
    examples: tuple[FlippedCase, ...] = Field(description="at most three of each family")


class ExpectationFailure(Record):
    """One expectation that does not hold. `family` and `template` are None for the unchanged text."""

    place: str = Field(description="key path in the file, such as cases.3.expert")
    name: str
    expected: str
    found: str
    text: str
    family: str | None = None
    template: str | None = None


class ExpectationsRecord(Record):
    """The result of a file of expectations."""

    file: str
    n_cases: int
    n_decisions: int = Field(description="texts decided: the cases and what `perturb` makes of them")
    failures: tuple[ExpectationFailure, ...]


class RobustnessReport(Record):
    """All of robustness.json."""

    schema_version: Literal[1] = 1
    command: str
    created_at: str
    router_version: str
    texts: str = Field(description="where the measured texts come from")
    max_flips: float
    flips: RobustnessRecord | None = Field(description="None when only expectations were run")
    expectations: ExpectationsRecord | None

    @property
    def problems(self) -> tuple[str, ...]:
        """Reasons why the gate is shut, one line each; empty when it is open."""
        lines = []
        if self.flips is not None and self.flips.overall.experts.value > self.max_flips:
            share, families = self.flips.overall.experts, self.flips.families
            worst = max(families, key=lambda name: families[name].experts.value)
            lines.append(
                f"{share.value:.1%} of {share.n} decisions flip, more than the {self.max_flips:.1%} allowed; "
                f"most under {worst} ({families[worst].experts.value:.1%})"
            )
        if self.expectations is not None:
            lines.extend(failure_line(self.expectations.file, failure) for failure in self.expectations.failures)
        return tuple(lines)


def failure_line(file: str, failure: ExpectationFailure) -> str:
    under = "" if failure.family is None else f" under {failure.family} ({failure.template}): {failure.text[:80]!r}"
    return f"{file}: {failure.place}: '{failure.name}' expected {failure.expected}, got {failure.found}{under}"
