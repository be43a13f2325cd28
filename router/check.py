"""What `coe check` looks at beyond the shape of experts.yaml: plugins, files, names and budgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from router import plugins
from router.build import expert_costs
from router.config import Budgets, CoeConfig, Engine, ExpertConfig, PluginConfig
from router.errors import ConfigError, InfeasibleBudgetError, MissingWeightsError
from router.policy import solve_map
from router.quality import QualityMatrix
from router.retrieval import building
from router.retrieval.experts import adapter
from router.weights import expanded, resolve_weights

TYPICAL_TOKENS = 500.0
"""Prompt and answer tokens that budgets in USD are checked with before anything was measured (ours)."""


def find_problems(config: CoeConfig, path: Path) -> list[str]:
    """Problems, one line each, naming file, key path, value and what is allowed."""
    parts = (
        plugin_problems(config),
        expert_problems(config, path.parent),
        budget_problems(config),
        retrieval_problems(config, path.parent),
    )
    return [f"{path}: {line}" for part in parts for line in part]


def plugin_problems(config: CoeConfig) -> Iterator[str]:
    families: dict[str, PluginConfig] = {
        "encoder": config.router.encoder,
        "classifier": config.router.classifier,
        "scorer": config.router.scorer,
    }
    for key, plugin in families.items():
        try:
            plugins.validate_options(f"router.{key}s", plugin.kind, plugin.options)
        except ConfigError as error:
            yield from (f"router.{key}: {problem}" for problem in error.problems)


def expert_problems(config: CoeConfig, folder: Path) -> Iterator[str]:
    for name, entry in config.experts.items():
        if entry.engine is Engine.LLAMACPP:
            try:
                resolve_weights(entry.model, folder)
            except (MissingWeightsError, ConfigError) as error:
                yield f"experts.{name}.model: {error}"
        elif entry.engine is Engine.VLLM:
            yield from home_problems(f"experts.{name}.model", entry.model)
        if entry.adapter is not None and entry.engine in (Engine.LLAMACPP, Engine.VLLM):
            yield from adapter_problems(name, entry, folder)


def home_problems(key: str, path: str) -> Iterator[str]:
    try:
        expanded(path)
    except ConfigError as error:
        yield f"{key}: {error}"


def adapter_problems(name: str, entry: ExpertConfig, folder: Path) -> Iterator[str]:
    try:
        adapter = folder / expanded(str(entry.adapter))
    except ConfigError as error:
        yield f"experts.{name}.adapter: {error}"
        return
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / file).is_file():
            yield f"experts.{name}.adapter: '{entry.adapter}' is not a PEFT folder: {adapter / file} is missing"


def budget_problems(config: CoeConfig) -> Iterator[str]:
    """Budgets that no map can keep, whatever will be measured: sizes and prices alone rule them out."""
    entries = list(config.experts.values())
    shape = (len(config.categories), len(entries))
    unmeasured = QualityMatrix(
        quality=np.full(shape, 0.5, dtype=np.float32),
        stderr=np.zeros(shape, dtype=np.float32),
        count=np.zeros(shape, dtype=np.float32),
        mass=np.full(shape[0], 1 / shape[0], dtype=np.float32),
        prompt_tokens=np.full(shape[0], TYPICAL_TOKENS, dtype=np.float32),
        output_tokens=np.full(shape, TYPICAL_TOKENS, dtype=np.float32),
        latency_ms=np.zeros(shape, dtype=np.float32),
    )
    for name, policy in config.policies.items():
        budgets = Budgets.model_validate(policy.budgets.model_dump() | {"latency_ms": None})
        try:
            solve_map(unmeasured.quality, unmeasured.mass, expert_costs(entries, unmeasured), budgets)
        except InfeasibleBudgetError as error:
            yield f"policies.{name}.budgets.{error.budget}: {error}"


def retrieval_problems(config: CoeConfig, folder: Path) -> Iterator[str]:
    section = config.retrieval
    if section is None:
        return
    families = {"encoder": ("router.encoders", section.encoder)}
    families |= {f"experts.{name}": (building.FAMILY, entry) for name, entry in section.experts.items()}
    for key, (family, plugin) in families.items():
        try:
            plugins.validate_options(family, plugin.kind, plugin.options)
        except ConfigError as error:
            yield from (f"retrieval.{key}: {problem}" for problem in error.problems)
            continue
        if plugin.kind == "adapter":
            yield from retrieval_adapter_problems(f"retrieval.{key}.path", str(plugin.options["path"]), folder)
    if section.pilots is not None:
        yield from home_problems("retrieval.pilots", section.pilots)


def retrieval_adapter_problems(key: str, path: str, folder: Path) -> Iterator[str]:
    try:
        is_there = (folder / expanded(path) / adapter.MANIFEST_FILE).is_file()
    except ConfigError as error:
        yield f"{key}: {error}"
        return
    if not is_there:
        yield f"{key}: '{path}' holds no adapter that `coe retrieval train` wrote"


def resolved_lines(config: CoeConfig) -> list[str]:
    """The configuration as it is understood, one line per expert and policy."""
    lines = [
        f"expert {name}: {entry.engine} {entry.model}"
        + (f" + {entry.adapter}" if entry.adapter else "")
        + f", {entry.active_b:g}B active, {entry.context_tokens} tokens of context"
        for name, entry in config.experts.items()
    ]
    for name, policy in config.policies.items():
        limits = {key: value for key, value in policy.budgets.model_dump().items() if value is not None}
        lines.append(
            f"policy {name}: budgets {limits or 'none'}, pins {policy.pins or 'none'}, "
            f"exploration {policy.exploration.epsilon:g}"
        )
    kinds = config.router
    lines.append(f"router: encoder {kinds.encoder.kind}, classifier {kinds.classifier.kind}, alpha {kinds.alpha:g}")
    if config.retrieval is not None:
        named = [f"base ({config.retrieval.encoder.kind})"]
        named += [f"{name} ({entry.kind})" for name, entry in config.retrieval.experts.items()]
        lines.append(f"retrieval: experts {', '.join(named)}; vector stores {config.retrieval.stores.index}")
    return lines
