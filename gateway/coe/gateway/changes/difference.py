"""The difference between two configurations, the part of it that a running gateway cannot take, and all else that is
checked before one is put in force."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from coe.base.errors import ConfigError
from coe.fleet.calls.connect import is_same_engine
from coe.fleet.vllm.addresses import read_vllm
from coe.router.config.composition import CoeConfig, parse_text
from coe.router.config.expert import Engine
from coe.router.live_pointer import check_categories, live_manifest, pin_problems

CHANGEABLE = (
    "categories",
    "experts",
    "policies",
    "answers",
    "examples",
    "aliases",
    "feedback",
    "router.alpha",
    "gateway.max_output_tokens",
    "gateway.extra_fields",
    "gateway.retries",
)
"""Keys whose change a running gateway takes."""

ALLOWED = "one with a `url`, or an adapter on weights that llama.cpp has"

ABSENT = object()


def differences(before: CoeConfig, after: CoeConfig) -> dict[str, str]:
    """A line for each key whose value changes, by that key."""
    return dict(differing("", before.model_dump(), after.model_dump()))


def differing(key: str, before: object, after: object) -> Iterator[tuple[str, str]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            path = f"{key}.{name}" if key else str(name)
            yield from differing(path, before.get(name, ABSENT), after.get(name, ABSENT))
    elif before is ABSENT or after is ABSENT:
        yield key, f"{key}: {'added' if before is ABSENT else 'removed'}"
    elif before != after:
        yield key, f"{key}: {shown(before)} -> {shown(after)}"


def shown(value: object) -> str:
    listed = tuple(sorted(value)) if isinstance(value, frozenset) else value
    several = ", ".join(map(str, listed)) if isinstance(listed, tuple) else listed
    return "none" if several in (None, "") else f"{several}"


def restart_problems(started: CoeConfig, config: CoeConfig, running: Collection[str]) -> list[str]:
    """The changes since a gateway's start that it cannot take, one line each.

    Args:
        running: experts on engines that `coe experts up` runs now.
    """
    needs = "needs a restart of the gateway"
    taken = tuple(f"{key}." for key in CHANGEABLE)
    problems = [f"{key}: {needs}" for key in differences(started, config) if not f"{key}.".startswith(taken)]
    weights = {each.model for each in started.experts.values() if each.engine is Engine.LLAMACPP}
    for name, entry in config.experts.items():
        was, is_llamacpp = started.experts.get(name), entry.engine is Engine.LLAMACPP
        is_there = (was is not None and is_same_engine(was, entry)) or (entry.engine is Engine.VLLM and name in running)
        gets_process = is_llamacpp and entry.adapter is not None and entry.model in weights  # beside the others
        is_of_host = entry.url is None and (is_llamacpp or entry.engine is Engine.VLLM)
        if is_of_host and not (is_there or gets_process):
            problems.append(f"experts.{name}: an expert on an engine of this host {needs}; allowed: {ALLOWED}")
    return problems


def checked(text: str, path: Path, data_dir: Path, started: CoeConfig | None) -> CoeConfig:
    """The configuration that a text means.

    Args:
        path: experts.yaml, in whose folder relative paths begin.
        started: what the gateway started with; None where none has.

    Raises:
        ConfigError: with one problem per fault, those that need a restart among them.
    """
    from coe.gateway.check import faults, find_problems  # which loads retrieval

    config, manifest = parse_text(text, file=str(path), started=started), live_manifest(data_dir)
    found = [] if manifest is None else pin_problems(config, manifest)
    if manifest is not None:
        found += faults("", partial(check_categories, config, manifest))
    if started is not None:
        found += restart_problems(started, config, read_vllm(data_dir).urls)
    if problems := find_problems(config, path) + [f"{path}: {line}" for line in found]:
        raise ConfigError("\n".join(problems), problems)
    return config
