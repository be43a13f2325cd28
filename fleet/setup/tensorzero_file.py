"""Experts from the tensorzero.toml of a TensorZero gateway, archived in June 2026."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from base.errors import ConfigError
from fleet.setup.composition import Found, safe_name
from router.price_list import listed_facts

OWN_ADDRESS = {"vllm": "vllm", "sglang": "openai", "tgi": "openai", "openai": "openai"}
"""Types of provider that speak OpenAI's API at `api_base`, and our engine for each."""

LITELLM_NAME = {
    "anthropic": "anthropic",
    "aws_bedrock": "bedrock",
    "azure": "azure",
    "deepseek": "deepseek",
    "fireworks": "fireworks_ai",
    "gcp_vertex_anthropic": "vertex_ai",
    "gcp_vertex_gemini": "vertex_ai",
    "google_ai_studio_gemini": "gemini",
    "groq": "groq",
    "hyperbolic": "hyperbolic",
    "mistral": "mistral",
    "openai": "openai",
    "openrouter": "openrouter",
    "together": "together_ai",
    "xai": "xai",
}
"""litellm's name of each type of provider."""

KEY_OF = {
    "fireworks": "FIREWORKS_API_KEY",
    "google_ai_studio_gemini": "GOOGLE_API_KEY",
    "together": "TOGETHER_API_KEY",
}
"""Variables that TensorZero reads a key from unless told otherwise; of others `<TYPE>_API_KEY`."""

WITHOUT_KEY = frozenset({"vllm", "tgi", "aws_bedrock", "gcp_vertex_anthropic", "gcp_vertex_gemini"})

PARAMS = {"region": "aws_region_name", "location": "vertex_location", "project_id": "vertex_project"}
"""Settings of a provider, and litellm's names of them."""

ELSEWHERE = {
    "embedding_models": "docs/retrieval.md has embedding experts",
    "rate_limiting": "docs/keys.md has limits of keys and teams",
    "tools": "clients send tools with their requests",
    "evaluations": "docs/report.md has `coe eval`",
    "clickhouse": "DATABASE_URL in the environment",
    "postgres": "DATABASE_URL in the environment",
}
"""Sections without a place in experts.yaml, each with where its purpose is met."""

MODEL_KEYS = ("model_name", "deployment_id", "model_id")


def tensorzero_experts(config: object, file: str) -> Found:
    """An expert for each provider in the `routing` of each of `models`, and for models that variants name in short.

    Raises:
        ConfigError: the file names no model.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{file}: is not a TensorZero configuration")
    found = Found()
    for name, model in tables(config.get("models")):
        add_model(found, name, model, f"{file}: models.{name}")
    for function, settings in tables(config.get("functions")):
        for variant, values in tables(settings.get("variants")):
            add_short_name(found, str(values.get("model", "")), f"{file}: functions.{function}.variants.{variant}")
        found.notes.append(
            f"functions.{function}: not taken over; send its prompt as messages, and let `auto` choose among the "
            "models of its variants, or name a policy with `auto:POLICY`"
        )
    for metric, _ in tables(config.get("metrics")):
        found.notes.append(f"metrics.{metric}: not taken over; docs/feedback.md has the kinds of feedback")
    found.note_unknown()
    for section in config:
        if section not in ("models", "functions", "metrics"):
            place = ELSEWHERE.get(str(section), "docs/configuration.md has every key of ours")
            found.notes.append(f"{section}: not taken over; {place}")
    return found


def tables(value: object) -> Iterable[tuple[str, Mapping[str, object]]]:
    """Name and content of the tables in a table."""
    for name, each in value.items() if isinstance(value, Mapping) else ():
        if isinstance(each, Mapping):
            yield str(name), each


def add_model(found: Found, name: str, model: Mapping[str, object], where: str) -> None:
    """Adds a model's providers, each an expert of its own, because each is measured; the name of several means them in
    the order of `routing`."""
    providers, routing = dict(tables(model.get("providers"))), model.get("routing")
    if not isinstance(routing, list):
        found.notes.append(f"{where}: has no list `routing`; left out")
        return
    made = {
        provider: entry
        for provider in map(str, routing)
        if (entry := expert_of(providers.get(provider, {}), f"{where}.providers.{provider}", found.notes))
    }
    found.name_also(name, [found.add(f"{name}-{each}" if len(made) > 1 else name, made[each]) for each in made])


def add_short_name(found: Found, short: str, where: str) -> None:
    """Adds the model of a variant that is written as `provider::model` and defined nowhere else."""
    kind, _, model = short.partition("::")
    if not model or safe_name(model) in {*found.experts, *found.aliases}:
        return
    entry = expert_of({"type": kind, "model_name": model}, where, found.notes)
    if entry is not None:
        found.add(model, entry)


def expert_of(provider: Mapping[str, object], where: str, notes: list[str]) -> dict[str, object] | None:
    """The keys of one expert; None, and a note, where we have no engine for it."""
    kind = str(provider.get("type", ""))
    model = next((str(provider[key]) for key in MODEL_KEYS if key in provider), "")
    address = provider.get("api_base") or provider.get("endpoint")
    engine = OWN_ADDRESS.get(kind) if address else None
    if not model or (engine is None and kind not in LITELLM_NAME):
        notes.append(f"{where}: type '{kind}' is left out; allowed: {', '.join(sorted({*LITELLM_NAME, *OWN_ADDRESS}))}")
        return None
    made: dict[str, object] = {
        "engine": engine or "litellm",
        "model": model if engine else f"{LITELLM_NAME[kind]}/{model}",
    }
    if isinstance(address, str):
        made["url"] = address.rstrip("/")
    if variable := key_variable(provider, kind, where, notes):
        made["api_key_env"] = variable
    params = {ours: provider[key] for key, ours in PARAMS.items() if isinstance(provider.get(key), str)}
    if params and not engine:
        made["params"] = params
    return made | listed_facts(f"{LITELLM_NAME.get(kind, kind)}/{model}")


def key_variable(provider: Mapping[str, object], kind: str, where: str, notes: list[str]) -> str | None:
    """The variable that contains the provider's key; None where it needs none."""
    location = provider.get("api_key_location")
    if isinstance(location, str) and location.startswith("env::"):
        return location.removeprefix("env::")
    if location not in (None, "none"):
        notes.append(f"{where}: a key from '{location}' is not taken over; name a variable in `api_key_env`")
    if location is not None or kind in WITHOUT_KEY:
        return None
    return KEY_OF.get(kind, f"{kind.upper()}_API_KEY")
