"""The page of experts: filtered, sorted, and a part of it at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

PAGE_EXPERTS = 50

ORDERS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "": ("as in experts.yaml", lambda one: 0),
    "name": ("name", lambda one: one["name"].lower()),
    "state": ("trouble first", lambda one: (one["state"] == "up", one["state"])),
    "price": ("cheapest first", lambda one: one["price_in_per_m_usd"] + one["price_out_per_m_usd"]),
    "parameters": ("largest first", lambda one: -one["params_b"]),
    "context": ("longest context first", lambda one: -one["context_tokens"]),
}


class ExpertPage(NamedTuple):
    """A part of the experts that match, how many those are, and how many of all are in each state."""

    shown: Sequence[Mapping[str, Any]]
    total: int
    states: Counter[str]
    number: int
    last: int


def expert_page(experts: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> ExpertPage:
    """The part that an address asks for; the nearest one where there is none of that number."""
    text, state = query.get("text", "").strip().lower(), query.get("state", "")
    found = [one for one in experts if (not state or one["state"] == state) and text in words_of(one)]
    found.sort(key=ORDERS.get(query.get("sort", ""), ORDERS[""])[1])
    number, last = query.get("page", ""), max(1, -(-len(found) // PAGE_EXPERTS))
    at = min(max(int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else 1, 1), last)
    shown = found[(at - 1) * PAGE_EXPERTS : at * PAGE_EXPERTS]
    return ExpertPage(shown, len(found), Counter(one["state"] for one in experts), at, last)


def words_of(one: Mapping[str, Any]) -> str:
    """Texts that the search box compares with."""
    return " ".join((one["name"], one["description"], one["engine"], one["model"], one["problem"] or "")).lower()
