"""The difference between two configurations, and the part of it that a running gateway cannot take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from fleet.connect import is_same_engine
from router.config import CoeConfig
from router.expert_config import Engine, ExpertConfig

CHANGEABLE = (
    "experts",
    "policies",
    "answers",
    "examples",
    "aliases",
    "router.alpha",
    "gateway.limits",
    "gateway.retries",
    "gateway.max_text_chars",
)
"""Keys whose change a running gateway takes."""

ALLOWED = "one with a `url`, or an adapter on weights that llama.cpp has"

ABSENT = object()


class Difference(NamedTuple):
    """A key whose value changes; ABSENT where it is not there."""

    key: str
    before: object
    after: object

    def __str__(self) -> str:
        if self.before is ABSENT:
            return f"{self.key}: added"
        if self.after is ABSENT:
            return f"{self.key}: removed"
        return f"{self.key}: {shown(self.before)} -> {shown(self.after)}"


def shown(value: object) -> str:
    return "none" if value is None else f"{value}"


def differences(before: CoeConfig, after: CoeConfig) -> list[Difference]:
    return list(differing("", before.model_dump(), after.model_dump()))


def differing(key: str, before: object, after: object) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            path = f"{key}.{name}" if key else str(name)
            yield from differing(path, before.get(name, ABSENT), after.get(name, ABSENT))
    elif before != after:
        yield Difference(key, before, after)


def restart_problems(started: CoeConfig, config: CoeConfig, running: Collection[str]) -> list[str]:
    """The changes since a gateway's start that it cannot take, one line each.

    Args:
        running: experts on engines that `coe experts up` runs now.
    """
    needs = "needs a restart of the gateway"
    problems = [f"{each.key}: {needs}" for each in differences(started, config) if not is_changeable(each.key)]
    for name, entry in config.experts.items():
        was = started.experts.get(name)
        is_there = (was is not None and is_same_engine(was, entry)) or (entry.engine.is_vllm and name in running)
        is_there = is_there or is_new_adapter(started, entry)
        if has_own_engine(entry) and not is_there:
            problems.append(f"experts.{name}: an expert on an engine of this host {needs}; allowed: {ALLOWED}")
    return problems


def is_changeable(key: str) -> bool:
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in CHANGEABLE)


def is_new_adapter(started: CoeConfig, entry: ExpertConfig) -> bool:
    """Returns True for an adapter on weights that llama.cpp serves here: it gets a process beside the others."""
    bases = {each.model for each in started.experts.values() if each.engine is Engine.LLAMACPP}
    return entry.engine is Engine.LLAMACPP and entry.adapter is not None and entry.model in bases


def has_own_engine(entry: ExpertConfig) -> bool:
    """Returns True for an expert whose engine this host starts."""
    return entry.url is None and (entry.engine is Engine.LLAMACPP or entry.engine.is_vllm)
