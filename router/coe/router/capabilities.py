"""Requests that an expert can take, names that a request may ask for, and decisions for experts that the client
named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from coe.base.errors import NoEligibleExpertError
from coe.router import plugins
from coe.router.config.expert import Engine, Feature
from coe.router.config.gateway import CONSTRAINING, CONSTRAINTS
from coe.router.section import AUTO
from coe.router.types import GENERAL, DecisionReason, QueryFacts, RoutingDecision

if TYPE_CHECKING:
    from coe.router.config.composition import CoeConfig

NOT_REACHABLE = "is not reachable"
ASLEEP = "is asleep"
LIMITED = "is at its provider's limit"
FOR_NOW = (NOT_REACHABLE, ASLEEP, LIMITED)
"""Reasons why an expert is not eligible that the request did not cause."""

NOT_ALLOWED = "may not be used with this key"


@dataclass(frozen=True)
class Capabilities:
    """Requests that an expert can take. The default takes everything. One that `abstains` leaves some to the next
    expert, at no cost."""

    context_tokens: int | None = None
    supports: frozenset[str] = frozenset(Feature)
    apis: frozenset[str] = frozenset()
    abstains: bool = False
    constraints: frozenset[str] = CONSTRAINING

    def lacks(self, facts: QueryFacts) -> str | None:
        """Return why this expert cannot serve a request, or None."""
        if facts.has_image and Feature.IMAGES not in self.supports:
            return "does not take images"
        if facts.has_audio and Feature.AUDIO not in self.supports:
            return "does not take audio"
        if facts.has_tools and Feature.TOOLS not in self.supports:
            return "does not take tools"
        if facts.wants_json and Feature.JSON not in self.supports:
            return "does not guarantee JSON"
        if not facts.constraints <= self.constraints:
            return f"would ignore {', '.join(sorted(facts.constraints - self.constraints))}"
        if facts.needs_api is not None and facts.needs_api not in self.apis:
            return f"does not speak /v1/{facts.needs_api} itself"
        needed = facts.prompt_tokens + (facts.max_output_tokens or 0)
        if self.context_tokens is not None and needed > self.context_tokens:
            return f"context of {self.context_tokens} tokens is less than the {needed} needed"
        return None


def why_away(expert: str, facts: QueryFacts) -> str:
    """Return why an expert cannot be called now."""
    if expert in facts.asleep:
        return ASLEEP
    return LIMITED if expert in facts.limited else NOT_REACHABLE


def capabilities(config: CoeConfig) -> dict[str, Capabilities]:
    """Return the capabilities of each expert. A slot of the embedded engine bounds the contexts of its experts."""
    slot_tokens = config.llamacpp.context_tokens
    return {
        name: Capabilities(
            min(entry.context_tokens, slot_tokens) if entry.engine is Engine.LLAMACPP else entry.context_tokens,
            entry.supports,
            entry.apis,
            entry.engine is Engine.PLUGIN and getattr(plugins.load("fleet.providers", entry.model), "ABSTAINS", False),
            CONSTRAINING if entry.engine is Engine.PLUGIN else CONSTRAINTS.get(entry.engine, frozenset()),
        )
        for name, entry in config.experts.items()
    }


def explicit_decision(
    experts: Sequence[str],
    facts: QueryFacts,
    capabilities: Mapping[str, Capabilities],
    alive: Collection[str] | None = None,
    *,
    version: str = "none",
) -> RoutingDecision:
    """Return the decision if the client named the experts, in the order in which they are tried. Nothing is classified
    and no router is needed; the capability mask still holds. `version` is the router in force, if there is one.

    Raises:
        NoEligibleExpertError: each of them lacks something, is down or sleeps.
    """
    lacks: dict[str, str] = {}
    for expert in experts:
        lack = capabilities[expert].lacks(facts) if expert in capabilities else None
        if lack is None and alive is not None and expert not in alive:
            lack = why_away(expert, facts)
        if lack is not None:
            lacks[expert] = lack
    able = tuple(expert for expert in experts if expert not in lacks)
    if not able:
        raise NoEligibleExpertError(lacks)
    decision = named_decision(able, version)
    return decision.model_copy(update={"excluded": lacks}) if lacks else decision


@lru_cache(maxsize=1024)
def named_decision(experts: tuple[str, ...], version: str) -> RoutingDecision:
    """Return the decision for experts that can serve, which nothing else changes."""
    expert, *others = experts
    return RoutingDecision(
        expert=expert,
        category=GENERAL,
        confidence=0.0,
        is_fallback=False,
        reason=DecisionReason.EXPLICIT,
        likely_category=GENERAL,
        uncertainty=0.0,
        runner_up=others[0] if others else None,
        ranking=experts,
        eligible=experts,
        eligible_probs=(1.0, *(0.0 for _ in others)),
        predicted_quality=(0.0,) * len(experts),
        propensity=1.0,
        policy="explicit",
        router_version=version,
    )


class Target(NamedTuple):
    """The meaning of a request's `model`: routing by a policy, or experts by name, in the order they are tried."""

    policy: str | None = None
    experts: tuple[str, ...] = ()
    alias: str | None = None  # of experts.yaml, that it was asked by


def resolve_model(
    model: str, experts: Collection[str], policies: Collection[str], aliases: Mapping[str, tuple[str, ...]]
) -> Target | None:
    """Return the meaning of a model name; None if it has none.

    Args:
        aliases: further names; one that ends with `*` is a prefix of names, and the longest that fits counts.
    """
    if model == AUTO:
        return Target(policy="default")
    if model in experts:
        return Target(experts=(model,))
    name, _, policy = model.partition(":")
    if name == AUTO and policy in policies:
        return Target(policy=policy)
    alias = alias_of(model, aliases)
    if alias is not None:
        first, *others = aliases[alias]
        target = resolve_model(first, experts, policies, {})
        return target and target._replace(experts=(*target.experts, *others), alias=alias)
    return None


def alias_of(model: str, aliases: Collection[str]) -> str | None:
    """Return the alias that matches a model name; None if none does."""
    if model in aliases:
        return model
    fitting = [alias for alias in aliases if alias.endswith("*") and model.startswith(alias[:-1])]
    return max(fitting, key=len, default=None)


def model_names(experts: Collection[str], policies: Collection[str]) -> list[str]:
    """Return every name that a client may ask for, routing first."""
    return [AUTO, *(f"{AUTO}:{policy}" for policy in policies), *experts]
