"""Categories of an outcome table that can be learned."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from router.types import GENERAL
from training.types import OutcomeTable

MIN_TABLE_PROMPTS = 5
"""Fewest prompts of a category that is learned: with one in each fold, every fold's training part has some (ours)."""

ONE_CATEGORY = "all"
"""The category of every prompt where none of the table's own can be learned."""


def learned_categories(table: OutcomeTable) -> tuple[str, ...]:
    """Those with enough prompts, sorted."""
    counts = Counter(table.categories)
    return tuple(sorted(name for name in counts if name != GENERAL and counts[name] >= MIN_TABLE_PROMPTS))


def in_one_category(table: OutcomeTable) -> OutcomeTable:
    """The same prompts, all of `ONE_CATEGORY`."""
    return replace(table, categories=(ONE_CATEGORY,) * len(table.prompt_ids))
