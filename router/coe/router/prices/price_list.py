"""Prices and abilities of hosted models, from the table that comes with litellm. litellm itself is not imported: that
takes seconds, and it looks for a newer table on the network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

from coe.router.prices.cost import resolved

TABLE = "model_prices_and_context_window_backup.json"

NAMES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_read_input_audio_token_cost": "cache_read_audio",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "input_cost_per_audio_token": "audio_in",
    "input_cost_per_image_token": "image_in",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "audio_out",
    "output_cost_per_image_token": "image_out",
}
"""litellm's names of prices, and the kinds of `router.cost.Rates`."""

TIER = re.compile(r"(.+)_above_(\d+)(k?)_tokens")


@cache
def price_table() -> Mapping[str, Mapping[str, object]]:
    """Load facts by litellm's name of a model; empty if litellm is not installed or has no such table."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        table = json.loads((Path(spec.origin).parent / TABLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: facts for name, facts in table.items() if isinstance(facts, dict)}


def listed_facts(model: str) -> dict[str, object]:
    """Return the keys of an experts.yaml entry that the table knows of a model in litellm's notation. They are prices
    in USD per million tokens, context in tokens, tools, images. A model is named like openai/gpt-4o-mini."""
    return entry_keys(price_entry(model))


def listed_mode(model: str) -> object:
    """Return a model's task by the table: `chat`, also for an unknown one, `embedding`, ..."""
    return price_entry(model).get("mode", "chat")


def price_entry(model: str) -> Mapping[str, object]:
    """Return everything that the table has of a model in litellm's notation."""
    table = price_table()
    return table.get(model) or table.get(model.partition("/")[2]) or {}


def entry_keys(facts: Mapping[str, object]) -> dict[str, object]:
    """Return the same keys from facts under litellm's names, as in its table and its proxy's `model_info`."""
    found: dict[str, object] = entry_prices(facts)
    context = facts.get("max_input_tokens") or facts.get("max_tokens")
    if isinstance(context, int) and context > 0:
        found["context_tokens"] = context
    abilities = {"audio": "audio_input", "images": "vision", "tools": "function_calling"}
    if features := [ours for ours, theirs in abilities.items() if facts.get(f"supports_{theirs}") is True]:
        found["supports"] = [*features, "json"]
    return found


def entry_prices(facts: Mapping[str, object]) -> dict[str, Any]:
    """Return the keys of prices; none if neither input nor output has one. Prices by time of day, by region and of
    faster service are left out, and those of batches: coe sends batch lines as chats, at the price of chats."""
    found: dict[str, Any] = rates_of(facts)
    above: dict[int, dict[str, float]] = {}
    inclusive = facts.get("litellm_provider") == "xai"  # whose prices change at the limit, others' above it
    for key, rate in facts.items():
        if (named := TIER.fullmatch(key)) and named[1] in NAMES and is_price(rate):
            least = int(named[2]) * (1000 if named[3] else 1) - inclusive
            above.setdefault(least, {})[NAMES[named[1]]] = per_million(rate)
    tiers = facts.get("tiered_pricing")
    for tier in (each for each in tiers if "range" in each) if isinstance(tiers, list) else ():
        # Such a tier names all its prices: cached tokens without one cost its input, not that of a lower tier.
        above[int(tier["range"][0])] = resolved({"output": found.get("output", 0.0), **rates_of(tier)})
    found |= above.pop(0, {})
    if not (found.get("input") or found.get("output")):
        return {}
    return {"price": found} | ({"price_above": above} if above else {})


def rates_of(facts: Mapping[str, Any]) -> dict[str, float]:
    return {kind: per_million(facts[name]) for name, kind in NAMES.items() if is_price(facts.get(name))}


def is_price(rate: object) -> TypeGuard[float]:
    return isinstance(rate, int | float) and rate >= 0


def per_million(rate: float) -> float:
    return round(rate * 1e6, 9)
