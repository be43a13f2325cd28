"""The checks of `coe check` beyond the shape of experts.yaml: plugins, files, names and budgets; and, with `--online`,
the models that engines list. Nothing is generated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from coe.base.errors import (
    ArtifactError,
    ConfigError,
    EngineError,
    InfeasibleBudgetError,
    MissingWeightsError,
    allowed_values,
)
from coe.base.extras import MissingExtraError
from coe.base.money import money
from coe.fleet.calls.connect import PROVIDERS
from coe.fleet.figures import USUAL, Figures
from coe.fleet.hosts.engine_plans import require_llamacpp
from coe.fleet.hosts.vllm_gpus import placed_processes
from coe.fleet.setup.endpoints import KeyRefusedError, listed_models
from coe.fleet.vllm.command import managed_experts
from coe.gateway.keys.oidc import require_oidc
from coe.retrieval import build_experts
from coe.retrieval.experts import trained
from coe.router import plugins
from coe.router.build import expert_costs
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.config.policy import Budgets
from coe.router.model_files.weights import PACKAGE_SCHEME, expanded, resolve_weights
from coe.router.policy.map_solver import solve_map
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.quality import QualityMatrix

LISTING = (Engine.OPENAI, Engine.VLLM)
"""Engines that list their models at `/models`. llama.cpp is started with its model, litellm's providers have no probe
that they share."""


def find_problems(
    config: CoeConfig, path: Path, environment: Mapping[str, str] | None = None, figures: Figures = USUAL
) -> list[str]:
    """Finds all that would keep a gateway from starting or an expert from answering, one line each, with file, key
    path, value and what is allowed.

    Args:
        environment: where the keys of experts and the addresses of databases are; None looks for none.
        figures: with which engines are planned.
    """
    experts = list(expert_problems(config, path.parent))
    plans_gpus = environment is not None and not experts  # without its files no engine can be planned
    parts = (
        plugin_problems(config),
        experts,
        () if environment is None else variable_problems(config, environment),
        faults("", partial(placed_processes, config, path.parent, environment or {}, figures)) if plans_gpus else (),
        budget_problems(config),
        () if config.gateway.oidc is None else faults("", require_oidc),
        retrieval_problems(config, path.parent),
    )
    return [f"{path}: {line}" for part in parts for line in part]


def faults(key: str, check: Callable[[], object]) -> Iterator[str]:
    """The fault that a check raises, after the key that it is about; a missing extra says itself what needs it."""
    try:
        check()
    except (ArtifactError, ConfigError, MissingExtraError, MissingWeightsError) as error:
        yield f"{key}: {error}" if key else str(error)


def plugin_problems(config: CoeConfig) -> Iterator[str]:
    """Faults of plugins' options, and packages of weights that they or their parts name and that are missing."""
    for key, (family, plugin) in config.every_plugin.items():
        try:
            parts = list(plugins.parts_of(key, family, plugin.kind, plugin.options))
        except ConfigError as error:
            yield from (f"{key}: {problem}" for problem in error.problems)
            continue
        for where, kind, options in parts:
            yield from faults(where, partial(plugins.require_imports, kind))
            for name, value in options:
                if isinstance(value, str) and value.startswith(PACKAGE_SCHEME):
                    yield from faults(f"{where}.{name}", partial(resolve_weights, value))


def variable_problems(config: CoeConfig, environment: Mapping[str, str]) -> Iterator[str]:
    """Environment variables that the file names and that are not set."""
    named: dict[str, str | None] = {
        f"{config.entry_key(name)}.{key}": variable
        for name, entry in config.engine_entries.items()
        for key, variable in entry.variables.items()
    }
    for key, (family, plugin) in config.every_plugin.items():
        with suppress(ConfigError):  # told by `plugin_problems`
            parts = plugins.parts_of(key, family, plugin.kind, plugin.options)
            named |= {f"{where}.api_key_env": getattr(options, "api_key_env", None) for where, _, options in parts}
    if config.retrieval is not None:
        named["retrieval.pgvector_url_env"] = config.retrieval.pgvector_url_env
        if config.retrieval.reranker is not None:
            named["retrieval.reranker.api_key_env"] = config.retrieval.reranker.api_key_env
    for key, variable in named.items():
        if variable is not None and not environment.get(variable):
            yield f"{key}: environment variable {variable} is not set"


def expert_problems(config: CoeConfig, folder: Path) -> Iterator[str]:
    for name, entry in config.experts.items():
        if entry.engine is Engine.LLAMACPP:
            lacking = list(faults("", partial(require_llamacpp, name)))
            yield from lacking or faults(f"experts.{name}.model", partial(resolve_weights, entry.model, folder))
        elif entry.engine is Engine.PLUGIN:
            yield from faults(f"experts.{name}", partial(check_plugin, entry))
        elif entry.engine is Engine.LITELLM:
            litellm = plugins.load("fleet.providers", "litellm")
            yield from faults(f"experts.{name}.engine", partial(plugins.require_imports, litellm))
        if entry.adapter is not None and (entry.engine is Engine.LLAMACPP or entry.engine is Engine.VLLM):
            yield from adapter_problems(name, entry, folder)
    for name, entry in managed_experts(config).items():
        yield from faults(f"{config.entry_key(name)}.model", partial(expanded, entry.model))


def check_plugin(entry: ExpertConfig) -> None:
    """Raises ConfigError, MissingExtraError."""
    plugins.validate_options(PROVIDERS, entry.model, {**entry.params, **entry.params_env})
    plugins.require_imports(plugins.load(PROVIDERS, entry.model))


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
    """Budgets that no map can keep, whatever will be measured: sizes alone rule them out. What a query costs or takes
    is measured, and the live router knows it."""
    entries, names, rows = list(config.experts.values()), list(config.experts), list(config.categories)
    shape = (len(config.categories), len(entries))
    unmeasured = QualityMatrix(
        quality=np.full(shape, 0.5, dtype=np.float32),
        stderr=np.zeros(shape, dtype=np.float32),
        count=np.zeros(shape, dtype=np.float32),
        mass=np.full(shape[0], 1 / shape[0], dtype=np.float32),
        prompt_tokens=np.zeros(shape[0], dtype=np.float32),
        output_tokens=np.zeros(shape, dtype=np.float32),
        latency_ms=np.zeros(shape, dtype=np.float32),
    )
    for name, policy in config.policies.items():
        budgets = Budgets.model_validate(policy.budgets.model_dump() | {"cost_usd": None, "latency_ms": None})
        costs = expert_costs(entries, unmeasured)
        pins = policy.pin_numbers(rows, names)
        try:
            solve_map(unmeasured.quality, unmeasured.mass, costs, budgets)
            # How much of the traffic a pin takes is not known yet, so only what is in memory can be told.
            solve_map(
                unmeasured.quality, unmeasured.mass, costs, Budgets(hosted_params_b=budgets.hosted_params_b), pins
            )
        except InfeasibleBudgetError as error:
            yield f"policies.{name}.budgets.{error.budget}: {error}"


def retrieval_problems(config: CoeConfig, folder: Path) -> Iterator[str]:
    section = config.retrieval
    if section is None:
        return
    yield from faults("retrieval", build_experts.require_stores)
    for name, plugin in section.experts.items():
        if plugin.kind == "trained" and isinstance(plugin.options.get("path"), str):
            is_there = partial(require_trained, str(plugin.options["path"]), folder)
            yield from faults(f"retrieval.experts.{name}.path", is_there)
    if section.pilots is not None:
        yield from faults("retrieval.pilots", partial(expanded, section.pilots))


def require_trained(path: str, folder: Path) -> None:
    """Raises ConfigError."""
    if not (folder / expanded(path) / trained.MANIFEST_FILE).is_file():
        raise ConfigError(f"'{path}' holds no expert that `coe retrieval train` wrote")


def resolved_lines(config: CoeConfig) -> list[str]:
    """The rest of the configuration as it is understood: policies, router, retrieval."""
    lines = []
    for name, policy in config.policies.items():
        limits = {key: value for key, value in policy.budgets.model_dump().items() if value is not None}
        floor = "" if policy.quality_floor is None else f"the cheapest plan {policy.quality_floor.words}, "
        lines.append(
            f"policy {name}: {floor}budgets {limits or 'none'}, pins {policy.pins or 'none'}, "
            f"exploration {policy.exploration_words}"
        )
    kinds = config.router
    lines.append(f"router: encoder {kinds.encoder.kind}, classifier {kinds.classifier.kind}, alpha {kinds.alpha:g}")
    if config.retrieval is not None:
        named = [f"base ({config.retrieval.encoder.kind})"]
        named += [f"{name} ({entry.kind})" for name, entry in config.retrieval.experts.items()]
        where = "in Postgres" if config.retrieval.pgvector_url_env else "in memory"
        lines.append(f"retrieval: experts {', '.join(named)}; vectors {where}")
    return lines


METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata", "100.100.100.200", "fd00:ec2::254"})
"""Hosts beside the link-local ones at which a cloud gives a machine its credentials."""


def address_warnings(config: CoeConfig) -> Iterator[str]:
    """Yield a warning for each URL with a password in it, and for each that leads to a cloud's metadata. No password is
    shown."""
    urls = {config.entry_key(name): entry.roots for name, entry in config.engine_entries.items()}
    urls |= {key: tuple(url_options(plugin.options)) for key, (_, plugin) in config.every_plugin.items()}
    if config.retrieval is not None and config.retrieval.reranker is not None:
        urls["retrieval.reranker"] = (config.retrieval.reranker.url,)
    for key, roots in urls.items():
        for parts in map(urlsplit, roots):
            if parts.password is not None:
                yield f"{key}.url: has a password in it, which logs and lists may show; allowed: api_key_env"
            if is_metadata(parts.hostname or ""):
                yield (
                    f"{key}.url: '{parts.hostname}' is a link-local address or a cloud's metadata; allowed, if that is "
                    "meant: an expert there can read what it tells, such as keys of this machine"
                )


def url_options(options: Mapping[str, object]) -> Iterator[str]:
    """Yield the URLs among a plugin's options, nested plugins included."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from url_options(value)
        elif key == "url" and isinstance(value, str):
            yield value


def is_metadata(host: str) -> bool:
    """Return whether a host is link-local, or one of a cloud's for its metadata."""
    if host in METADATA_HOSTS:
        return True
    try:
        return ip_address(host.partition("%")[0]).is_link_local
    except ValueError:
        return False


def floor_lines(policies: Mapping[str, SolvedPolicy]) -> Iterator[str]:
    """What the live router predicts of each policy with a floor."""
    for name, policy in policies.items():
        if policy.floor is not None:
            found = policy.predicted
            price = f"{money(1000 * found['cost_usd'])} for 1,000 queries"
            if not found["cost_usd"]:
                price = f"{found['active_params_b']:.1f}B active parameters"
            asked = f"of the {policy.floor.least:.3f} asked"
            yield f"policy {name}: predicted quality {found['quality']:.3f} {asked}, at {price}"


async def engine_problems(
    config: CoeConfig, environment: Mapping[str, str], running: Mapping[str, Sequence[str]]
) -> list[str]:
    """One line for each expert whose engine does not answer, refuses the key, or does not have its model.

    Args:
        environment: where `api_key_env` is looked up.
        running: API roots of experts whose engines this host started.
    """
    addresses = [
        (name, url)
        for name, entry in config.experts.items()
        if entry.engine in LISTING
        for url in entry.roots or running.get(name) or (None,)
    ]
    found = await asyncio.gather(*(ask(name, config.experts[name], url, environment) for name, url in addresses))
    return [problem for problem in found if problem is not None]


def not_asked(config: CoeConfig) -> list[str]:
    """Experts whose engine cannot be asked."""
    return [name for name, entry in config.experts.items() if entry.engine not in LISTING]


async def ask(name: str, entry: ExpertConfig, url: str | None, environment: Mapping[str, str]) -> str | None:
    """Asks for one expert; returns its problem, or None."""
    if url is None:
        return f"experts.{name}: its engine does not run; `coe experts up` starts it"
    try:
        listed = await listed_models(url, environment.get(entry.api_key_env or ""))
    except KeyRefusedError as error:
        wanted = (
            f"it refuses the key in {entry.api_key_env}" if entry.api_key_env else "it wants a key; set api_key_env"
        )
        return f"experts.{name}: {error}: {wanted}"
    except EngineError as error:
        return f"experts.{name}: {error}"
    wanted = entry.name_on_engine(name)
    if wanted in listed:
        return None
    field = "served_model" if entry.served_model or entry.url is None else "model"
    return f"experts.{name}.{field}: {url} has no model '{wanted}'{allowed_values(wanted, listed)}"
