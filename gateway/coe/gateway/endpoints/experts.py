"""GET /v1/experts: what each expert is, where it runs, and whether it can be called now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from coe.fleet.calls.connect import DisabledBackend
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.calls.replicas import BreakerState
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import read_vllm
from coe.gateway.endpoints.access import CallerOf, Config, api_router, part
from coe.gateway.routers.live_router import LiveRouter
from coe.router.config.expert import Engine, ExpertConfig, Feature
from coe.router.types import Record

api = api_router()

STATES: Mapping[BreakerState, Literal["up", "on trial", "down", "at its limit"]] = {
    BreakerState.CLOSED: "up",
    BreakerState.HALF_OPEN: "on trial",
    BreakerState.OPEN: "down",
    BreakerState.LIMITED: "at its limit",
}

HOSTED = frozenset({Engine.OPENAI, Engine.LITELLM})


class ExpertView(Record):
    """An expert as it is now. `shares_base_with` counts the experts on the same weights; prices are in USD for a
    million tokens, parameters in billions."""

    name: str
    description: str
    engine: str
    model: str
    is_hosted: bool
    shares_base_with: int
    state: Literal["up", "on trial", "down", "at its limit", "disabled"]
    problem: str | None
    residency: Residency | None = Field(description="of an engine that this host runs, or of an adapter on it")
    params_b: float
    active_params_b: float
    context_tokens: int
    price_in_per_m_usd: float
    price_out_per_m_usd: float
    takes: tuple[str, ...]


class ExpertList(Record):
    """Experts in the order of experts.yaml."""

    object: Literal["list"] = "list"
    data: tuple[ExpertView, ...]


@api.get("/v1/experts")
async def list_experts(
    config: Config,
    pool: Annotated[ExpertPool, part("pool")],
    live: Annotated[LiveRouter, part("live")],
    caller: CallerOf,
) -> ExpertList:
    """The experts that the caller may name, and of vLLM's engines whether they are awake."""
    shared = Counter(entry.host_group for entry in config.experts.values())
    named = {name: entry for name, entry in config.experts.items() if caller.may_ask(name)}
    ours = [name for name, entry in named.items() if entry.engine is Engine.VLLM and entry.url is None]
    places, problems = await residencies(ours, live.folder.parent), pool.problems()
    return ExpertList(
        data=tuple(
            view_of(name, entry, pool, shared[entry.host_group], places.get(name), problems.get(name))
            for name, entry in named.items()
        )
    )


async def residencies(experts: Collection[str], data_dir: Path) -> dict[str, Residency]:
    """States that the engines of this host report; those that do not answer are left out."""
    if not experts:
        return {}
    urls = (await asyncio.to_thread(read_vllm, data_dir)).urls
    actuator = VllmActuator(lambda: urls)
    try:
        found = await asyncio.gather(*map(actuator.state, experts), return_exceptions=True)
    finally:
        await actuator.aclose()
    return {name: place for name, place in zip(experts, found, strict=True) if isinstance(place, Residency)}


def view_of(
    name: str,
    entry: ExpertConfig,
    pool: ExpertPool,
    n_sharing: int,
    residency: Residency | None,
    problem: str | None,
) -> ExpertView:
    if residency is Residency.AWAKE and entry.adapter is not None:
        residency = Residency.ADAPTER
    price_in, price_out = entry.chat_price.of_text
    return ExpertView(
        name=name,
        description=entry.description,
        engine=entry.engine.value,
        model=entry.model,
        is_hosted=entry.engine in HOSTED,
        shares_base_with=n_sharing - 1,
        state="disabled" if isinstance(pool.backend(name), DisabledBackend) else STATES[pool.state(name)],
        problem=problem,
        residency=residency,
        params_b=entry.params_b,
        active_params_b=entry.active_b,
        context_tokens=entry.context_tokens,
        price_in_per_m_usd=price_in,
        price_out_per_m_usd=price_out,
        takes=tuple(feature for feature in Feature if feature in entry.supports),
    )
