"""An outcome table as flat rows, one a score."""

from __future__ import annotations

from collections.abc import Iterator

from eval.export_formats import cell, scored_pairs
from training.datasets.flat_rows import FIELDS as FIELDS
from training.types import OutcomeTable


def flat_scores(table: OutcomeTable) -> Iterator[dict[str, str | float | None]]:
    """One row a score; None where a number is unknown."""
    for prompt, expert in scored_pairs(table):
        yield {
            "prompt_id": table.prompt_ids[prompt],
            "prompt": table.texts[prompt],
            "category": table.categories[prompt],
            "split": table.splits[prompt],
            "model": table.experts[expert],
            "score": cell(table.scores, prompt, expert),
            "metric": table.metric,
            "output_tokens": cell(table.output_tokens, prompt, expert),
            "cost_usd": cell(table.cost_usd, prompt, expert),
            "latency_ms": cell(table.latency_ms, prompt, expert),
        }
