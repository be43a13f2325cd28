"""GET /v1/experts: what each expert is, where it runs, and whether it can be called now."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fleet.breaker import BreakerState
from fleet.connect import DisabledBackend
from fleet.pool import ExpertPool
from gateway.endpoints.access import CallerOf, Config, api_router, part
from gateway.schemas import ExpertList, ExpertView
from router.config import Engine, ExpertConfig

api = api_router()

HOSTED = frozenset({Engine.OPENAI, Engine.LITELLM})


@api.get("/v1/experts")
def list_experts(config: Config, pool: Annotated[ExpertPool, part("pool")], caller: CallerOf) -> ExpertList:
    """The experts that the caller may name."""
    shared = Counter(entry.host_group for entry in config.experts.values())
    return ExpertList(
        data=tuple(
            view_of(name, entry, pool, shared[entry.host_group])
            for name, entry in config.experts.items()
            if caller.may_ask(name)
        )
    )


def view_of(name: str, entry: ExpertConfig, pool: ExpertPool, n_sharing: int) -> ExpertView:
    backend = pool.backend(name)
    problem = backend.problem if isinstance(backend, DisabledBackend) else None
    breaker = pool.state(name)
    state = {BreakerState.CLOSED: "up", BreakerState.HALF_OPEN: "on trial", BreakerState.OPEN: "down"}[breaker]
    return ExpertView(
        name=name,
        description=entry.description,
        engine=entry.engine.value,
        model=entry.model,
        is_hosted=entry.engine in HOSTED,
        shares_base_with=n_sharing - 1,
        state="disabled" if problem else state,
        problem=problem,
        params_b=entry.params_b,
        active_params_b=entry.active_b,
        context_tokens=entry.context_tokens,
        price_in_per_m_usd=entry.price_in_per_m_usd,
        price_out_per_m_usd=entry.price_out_per_m_usd,
        takes=tuple(name for name in ("images", "tools", "json") if getattr(entry, f"supports_{name}")),
    )
