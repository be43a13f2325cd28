"""The templates, how they write figures, and the experts that a page shows: filtered, sorted, a part at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from coe.base.money import money
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.listing import Doubt, Opinion
from coe.gateway.endpoints.decisions import signals_of, weighed_experts
from coe.router.types import RoutingDecision

NOTHING = "–"
MOST_ODDS = 1_000_000


def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("coe.gateway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "when": when,
        "clock": clock,
        "usd": money,
        "ms": milliseconds,
        "share": share,
        "count": count,
        "odds": odds,
    }
    made.globals |= {"states": list(TerminalState), "opinions": list(Opinion), "doubts": list(Doubt)}
    return made


def explained(routed: dict[str, Any]) -> dict[str, Any]:
    """A decision that was not carried out, in the shape of a receipt."""
    decision = RoutingDecision.model_validate(routed["decision"])
    return {
        "why": routed["why"],
        "read_from": routed["read_from"],
        "signals": signals_of(decision).model_dump(),
        "experts": [expert.model_dump() for expert in weighed_experts(decision)],
        "record": {"decision": routed["decision"]},
    }


def when(at: float | str) -> str:
    """A time in UTC, from Unix seconds or ISO 8601."""
    moment = datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(at, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def milliseconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"


def share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def odds(log_e: float) -> str:
    """The odds of an e-value, from its logarithm, which may be that of a number beyond all floats."""
    if log_e > math.log(MOST_ODDS):
        return f"over {MOST_ODDS:,} to 1"
    value = math.exp(log_e)
    return f"{value:,.0f} to 1" if value >= 10 else f"{value:.2g} to 1"


def count(value: float) -> str:
    return f"{value:,.0f}"


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
