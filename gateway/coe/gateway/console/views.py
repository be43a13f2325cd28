"""The templates, and how they write figures."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

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
