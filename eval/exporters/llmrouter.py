"""Routing data of LLMRouter: one line a query and model. Answers and their references are not in an outcome table, so
`response` and `ground_truth` are empty; input tokens are estimated from the length of the prompt.
"""

from __future__ import annotations

import json

from eval.export_formats import ExportRequest, cell, read_table, scored_pairs
from training.datasets.outcomes import CHARS_PER_TOKEN
from training.types import OutcomeTable

SUMMARY = "LLMRouter routing data (JSON lines)"
NEEDS = ("outcomes",)


def write(request: ExportRequest) -> int:
    """Gives the number of lines. Raises DataError."""
    table = read_table(request)
    rows = [row_of(table, prompt, expert) for prompt, expert in scored_pairs(table)]
    with request.out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return len(rows)


def row_of(table: OutcomeTable, prompt: int, expert: int) -> dict[str, object]:
    input_tokens = len(table.texts[prompt]) // CHARS_PER_TOKEN
    tokens = cell(table.output_tokens, prompt, expert)
    output_tokens = None if tokens is None else round(tokens)
    latency_ms = cell(table.latency_ms, prompt, expert)
    return {
        "task_name": table.categories[prompt],
        "query": table.texts[prompt],
        "ground_truth": "",
        "metric": table.metric,
        "choices": None,
        "task_id": table.prompt_ids[prompt],
        "model_name": table.experts[expert],
        "response": "",
        "token_num": None if output_tokens is None else input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "response_time": None if latency_ms is None else latency_ms / 1000,
        "api_key_used": "",
        "performance": cell(table.scores, prompt, expert),
        "embedding_id": prompt,
        "user_id": None,
        "fig_id": None,
    }
