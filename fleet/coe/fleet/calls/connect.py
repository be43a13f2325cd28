"""From entries of experts.yaml to clients of the engines that serve them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from coe.base.errors import BackendError, ConfigError
from coe.fleet.calls.backend import BackendRequest, BackendResponse, ChatBackend, Unconnected
from coe.fleet.calls.replicas import ExpertBackend, Replicas
from coe.fleet.vllm.command import engine_flags
from coe.router import plugins
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.config.gateway import field_names

logger = logging.getLogger(__name__)

Roots = Sequence[str]
"""API roots of an expert's engines, which are alike."""

SCHEDULING = "scheduling-policy"
"""vLLM's flag; by its default `fcfs` the engine refuses a priority."""

PROVIDERS, OPENAI_PROVIDER = "fleet.providers", "vllm"
"""An engine has the provider of its name; those without a file there, llama.cpp's server among them, speak OpenAI's."""

DECLARED = field_names(
    """
    apis params_b active_params_b price price_above price_batch context_tokens supports description
    """
)
"""Fields of an entry that its backend does not need."""


def is_same_engine(one: ExpertConfig, other: ExpertConfig) -> bool:
    """Returns True where one backend serves both entries."""
    return one.model_dump(exclude=set(DECLARED)) == other.model_dump(exclude=set(DECLARED))


@dataclass(frozen=True)
class DisabledBackend(Unconnected):
    """An expert that cannot be called until the gateway starts again; `problem` says why."""

    problem: str

    async def send(self, request: BackendRequest) -> BackendResponse:
        raise BackendError(self.problem, status=503, is_retryable=True)

    async def is_alive(self) -> bool:
        return False


def build_backends(
    config: CoeConfig, urls: Mapping[str, Roots], lora_ids: Mapping[str, int | None], secrets: Mapping[str, str]
) -> dict[str, ExpertBackend]:
    """One backend per expert; a disabled one, and a warning, where a secret of the expert is not in the environment.

    Args:
        urls: API roots per expert, for those whose engines this host started; others have addresses in their entry.
        lora_ids: adapter number per llama.cpp expert; None is the bare base. Every one those engines serve is listed.
        secrets: value per environment variable that the entries name.

    Raises:
        ConfigError: an expert has no address.
    """
    return {
        name: build_backend(
            config, name, urls.get(name, entry.roots), ids_on_base(config, entry.model, lora_ids), secrets
        )
        for name, entry in config.experts.items()
    }


def ids_on_base(config: CoeConfig, model: str, lora_ids: Mapping[str, int | None]) -> dict[str, int | None]:
    """The adapters of one base: each base has an engine of its own, which counts its adapters from 0."""
    return {name: number for name, number in lora_ids.items() if config.experts[name].model == model}


def build_backend(
    config: CoeConfig, name: str, roots: Roots, lora_ids: Mapping[str, int | None], secrets: Mapping[str, str]
) -> ExpertBackend:
    """The client of an expert; of all its engines where it has several or a limit."""
    entry = config.experts[name]
    backends = {root or "": backend_at(config, name, root, lora_ids, secrets) for root in roots or (None,)}
    first = next(iter(backends.values()))
    if isinstance(first, DisabledBackend) or (len(backends) == 1 and entry.max_concurrency is None):
        return first
    return Replicas(name, backends, entry.max_concurrency)


def backend_at(
    config: CoeConfig, name: str, url: str | None, lora_ids: Mapping[str, int | None], secrets: Mapping[str, str]
) -> ChatBackend:
    entry = config.experts[name]
    for key, variable in entry.variables.items():
        if variable not in secrets:
            problem = f"experts.{name}.{key}: environment variable {variable} is not set"
            logger.warning("%s; the expert is disabled", problem)
            return DisabledBackend(problem)
    options: dict[str, object] = {}
    secret_params = {key: secrets[variable] for key, variable in entry.params_env.items()}
    if entry.api_key_env is not None:
        options["api_key"] = secrets[entry.api_key_env]
    if entry.engine is Engine.PLUGIN:
        return cast(ChatBackend, plugins.build(PROVIDERS, entry.model, {**options, **entry.params, **secret_params}))
    provider = entry.engine.value if entry.engine.value in plugins.kinds(PROVIDERS) else OPENAI_PROVIDER
    if provider == OPENAI_PROVIDER:
        if url is None:
            raise ConfigError(f"experts.{name}: no address; start its engine (`coe experts up`) or set `url`")
        options |= {"url": url, "served_model": entry.name_on_engine(name), "timeout_s": entry.timeout_s}
        options["params"] = entry.params
        options["takes_cache_salt"] = entry.engine is Engine.VLLM
        options["takes_priority"] = engine_flags(config, entry).get(SCHEDULING) == "priority"
        options["sets_id"] = entry.engine is Engine.OPENAI  # feedback may name an answer by it
        if entry.engine is Engine.LLAMACPP:
            options["extra_body"] = lora_selection(lora_ids.get(name), lora_ids)
            options["renames_answer"] = True  # llama.cpp answers with the path of its weights as `model`
    elif entry.engine is Engine.LITELLM:
        options |= {"model": entry.model, "timeout_s": entry.timeout_s, "api_base": url}
        options["params"] = {**entry.params, **secret_params}
    return cast(ChatBackend, plugins.build(PROVIDERS, provider, options))


def lora_selection(chosen: int | None, lora_ids: Mapping[str, int | None]) -> dict[str, object]:
    """llama.cpp's request fields that turn one adapter on and every other off; for the bare base all are off.

    A list with every adapter makes llama.cpp drop what another adapter computed, so that a slot may continue from a
    cached prompt (see `fleet.llamacpp`). Both fields replace whatever a client sent.
    """
    numbers = sorted(number for number in lora_ids.values() if number is not None)
    selected = [{"id": number, "scale": 1.0 if number == chosen else 0.0} for number in numbers]
    return {"lora": selected, "cache_prompt": True}
