"""Experts from the config.yaml of a LiteLLM proxy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import date

from coe.base.errors import ConfigError
from coe.fleet.setup.composition import Found, safe_name
from coe.router.config.expert import NOT_PARAMS
from coe.router.prices.price_list import entry_keys, listed_mode, price_entry

WIRE_OF = {"hosted_vllm": "vllm", "openai": "openai", "custom_openai": "openai", "text-completion-openai": ""}
"""Providers that speak OpenAI's API at an address of the user's, and our engine for each; "" has none."""

VARIABLE = "os.environ/"
LIMITS = frozenset({"rpm", "tpm", "weight", "order", "tags", "region_name", "num_retries", "stream_timeout"})
"""Parameters of LiteLLM's router, which `coe` sets in other places or does not have."""

RENAMED = {"timeout": "timeout_s", "max_parallel_requests": "max_concurrency"}
"""Numbers that are kept, with our key for each."""

TAKEN = NOT_PARAMS | RENAMED.keys() | {"base_model", "input_cost_per_token", "output_cost_per_token", "model_info"}
"""Parameters that become other keys of an entry."""


def litellm_experts(config: object, file: str) -> Found:
    """An expert for each deployment of `model_list`, aliases of `model_group_alias` and of names that mean several or
    have `fallbacks`, and a note for all else.

    Raises:
        ConfigError: the file has no `model_list`, or an entry of it has no model.
    """
    models = config.get("model_list") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(models, list):
        raise ConfigError(f"{file}: has no list `model_list`; allowed: the config.yaml of a LiteLLM proxy")
    found, groups, behind = Found(), defaultdict[str, list[str]](list), dict(fallbacks_of(config))
    times = Counter(str(entry.get("model_name")) for entry in models if isinstance(entry, Mapping))
    lists = {name for name in times if times[name] > 1 or name in behind}
    for i, entry in enumerate(models):
        add_deployment(found, groups, lists, entry, f"{file}: model_list.{i}")
    for name, own in groups.items():
        found.name_also(name, [*own, *(each for other in behind.get(name, ()) for each in groups.get(other, ()))])
        if own[1:]:
            found.notes.append(f"requests for '{name}' are not balanced: {own[0]} gets them, the next where it fails")
    for name, others in behind.items():
        if lost := [other for other in (name, *others) if other not in groups]:
            found.notes.append(f"fallbacks of '{name}': without {', '.join(lost)}, which became no expert")
    for alias, target in aliases_of(config):
        found.name_also(alias, found.aliases.get(target, groups.get(target, ())))
    found.note_unknown()
    found.notes += [f"{key}: not taken over; docs/migrate.md says what serves instead" for key in left_out(config)]
    return found


def add_deployment(
    found: Found, groups: defaultdict[str, list[str]], lists: Collection[str], entry: object, where: str
) -> None:
    """Adds one entry of `model_list`, and its expert to those of its name; where the name means a list, the expert has
    another. Raises ConfigError."""
    params = entry.get("litellm_params") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(params, Mapping) or not isinstance(params.get("model"), str):
        raise ConfigError(f"{where}: has no `litellm_params.model`")
    model, public = params["model"], str(entry.get("model_name", params["model"]))
    given = entry.get("model_info")
    info: Mapping[str, object] = given if isinstance(given, Mapping) else {}
    mode = info.get("mode") or listed_mode(model)
    if "*" in model or "*" in public:
        found.notes.append(f"{where}: '{public}' means many models; add an expert for each that you want")
        return
    if mode not in ("chat", "completion"):
        found.notes.append(f"{where}: '{public}' is of mode '{mode}'; docs/retrieval.md has embedding experts")
        return
    own = groups[public]
    name = f"{public}-{len(own) + 1}" if public in lists else public
    own.append(found.add(name, deployment(params, info, where, found.notes)))


def deployment(
    params: Mapping[str, object], info: Mapping[str, object], where: str, notes: list[str]
) -> dict[str, object]:
    """The keys of one expert. Adds to `notes` what must be done by hand."""
    provider, _, rest = str(params["model"]).partition("/")
    engine = WIRE_OF.get(provider, "") if params.get("api_base") else ""
    made: dict[str, object] = {"engine": engine or "litellm", "model": rest if engine else params["model"]}
    if params.get("api_base"):
        made["url"] = plain(params["api_base"], f"{where}: api_base", notes)
    if key := params.get("api_key"):
        if variable := variable_of(key):
            made["api_key_env"] = variable
        elif str(key).lower() not in ("none", "empty", "fake-key", "dummy"):
            made["api_key_env"] = f"{safe_name(str(params['model'])).upper().replace('-', '_').replace('.', '_')}_KEY"
            notes.append(f"{where}: the file contains a key; put it into the variable {made['api_key_env']}")
    own = {key: value for key, value in params.items() if key != "max_tokens"}  # which bounds an answer
    model = str(info.get("base_model") or params.get("base_model") or params["model"])
    made |= entry_keys({**price_entry(model), **own, **info})
    made |= {ours: value for name, ours in RENAMED.items() if isinstance(value := params.get(name), int | float)}
    further = provider_params(params) if engine == "" else {}
    made |= further
    kept = {key for part in further.values() for key in part} | TAKEN
    if lost := sorted(key for key in params if key not in kept):
        notes.append(f"{where}: not taken over: {', '.join(lost)}; docs/migrate.md says what serves instead")
    return {key: value for key, value in made.items() if value is not None}


def provider_params(params: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """`params` and `params_env`: further arguments of the provider, and those that are variables."""
    others = {key: value for key, value in params.items() if key not in TAKEN | LIMITS}
    secret = {key: name for key, value in others.items() if (name := variable_of(value))}
    given = {
        key: str(value) if isinstance(value, date) else value  # YAML reads api_version: 2024-10-21 as a date
        for key, value in others.items()
        if key not in secret and isinstance(value, str | int | float | date)
    }
    return {key: value for key, value in (("params", given), ("params_env", secret)) if value}


def plain(value: object, where: str, notes: list[str]) -> str:
    """An address; of one that is a variable, the variable's name in a place that must be edited."""
    if name := variable_of(value):
        notes.append(f"{where}: is in the variable {name}; write the address into `url`")
        return f"http://{name.lower().replace('_', '-')}.invalid"
    return str(value)


def variable_of(value: object) -> str | None:
    """The environment variable that `os.environ/NAME` means."""
    return value.removeprefix(VARIABLE) if isinstance(value, str) and value.startswith(VARIABLE) else None


def aliases_of(config: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """Alias and model of `router_settings.model_group_alias`, whose values may be mappings."""
    settings = config.get("router_settings")
    aliases = settings.get("model_group_alias") if isinstance(settings, Mapping) else None
    for alias, target in (aliases or {}).items() if isinstance(aliases, Mapping) else ():
        yield str(alias), str(target.get("model", "") if isinstance(target, Mapping) else target)


def fallbacks_of(config: Mapping[str, object]) -> Iterable[tuple[str, list[str]]]:
    """Model and those that are tried after it, of `fallbacks` of both sections that may have them."""
    for section in ("litellm_settings", "router_settings"):
        settings = config.get(section)
        given = settings.get("fallbacks") if isinstance(settings, Mapping) else None
        for each in given if isinstance(given, list) else ():
            for name, others in each.items() if isinstance(each, Mapping) else ():
                named = others if isinstance(others, list) else [others]
                yield str(name), [each if isinstance(each, str) else "one with settings of its own" for each in named]


SECTIONS = ("general_settings", "litellm_settings", "router_settings", "environment_variables")


def left_out(config: Mapping[str, object]) -> Iterable[str]:
    """Settings without a place in experts.yaml; values are not shown."""
    for section in SECTIONS:
        settings = config.get(section)
        keys = settings if isinstance(settings, Mapping) else ()
        yield from (f"{section}.{key}" for key in keys if key not in ("model_group_alias", "fallbacks"))
    yield from (str(key) for key in config if key not in ("model_list", *SECTIONS))
