"""Prices and abilities of hosted models, from the table that comes with litellm. litellm itself is not imported: that
takes seconds, and it looks for a newer table on the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

TABLE = "model_prices_and_context_window_backup.json"


@cache
def price_table() -> Mapping[str, Mapping[str, object]]:
    """Facts by litellm's name of a model; empty where litellm is not installed or has no such table."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        table = json.loads((Path(spec.origin).parent / TABLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: facts for name, facts in table.items() if isinstance(facts, dict)}


def listed_facts(model: str) -> dict[str, object]:
    """Keys of an entry of experts.yaml that the table knows of a model in litellm's notation, e.g. openai/gpt-4o-mini:
    prices in USD per million tokens, context in tokens, tools, images."""
    return entry_keys(listed(model))


def listed_mode(model: str) -> object:
    """Task of a model by the table: `chat`, which an unknown one has too, `embedding`, ..."""
    return listed(model).get("mode", "chat")


def listed(model: str) -> Mapping[str, object]:
    """Everything that the table has of a model in litellm's notation."""
    table = price_table()
    return table.get(model) or table.get(model.partition("/")[2]) or {}


def entry_keys(facts: Mapping[str, object]) -> dict[str, object]:
    """The same keys of facts under litellm's names, as its table and its proxy's `model_info` have them."""
    found: dict[str, object] = {}
    for key, name in (("price_in_per_m_usd", "input_cost_per_token"), ("price_out_per_m_usd", "output_cost_per_token")):
        price = facts.get(name)
        if isinstance(price, int | float) and price > 0:
            found[key] = round(price * 1e6, 6)
    context = facts.get("max_input_tokens") or facts.get("max_tokens")
    if isinstance(context, int) and context > 0:
        found["context_tokens"] = context
    abilities = {"tools": "function_calling", "images": "vision", "audio": "audio_input"}
    for key, name in ((f"supports_{ours}", f"supports_{theirs}") for ours, theirs in abilities.items()):
        if facts.get(name) is True:
            found[key] = True
    return found
