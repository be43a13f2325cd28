"""Records of stability. Intervals are at 95%."""

from __future__ import annotations

from pydantic import Field

from coe.router.types import Metric, Record


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
