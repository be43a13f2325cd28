"""Settings of a gateway from the environment, and the secrets that experts.yaml names there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field, SecretStr

from coe.base.errors import ConfigError
from coe.base.period import parse_period
from coe.decision_log.default_database import default_database_url
from coe.gateway.http.listener import check_strength
from coe.router.config.composition import CoeConfig
from coe.router.types import Record

FOR_ENGINES = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY"})
"""Secrets that engines ask for: to download weights, and to check callers."""

SERVICES = frozenset({"REDIS_URL", "DATABASE_URL"})
SECRET_ENDS = ("KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIALS", "HEADERS")

LEAST_KEY_CHARS = 12
"""Length of an expert's key from which answers must not hold it. Shorter ones are words that engines without keys are
given (EMPTY, ollama, not-needed), and to hide these would change answers: of a key `x`, that of every `index`."""

OFF = "off"

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
LOG_FORMATS = ("text", "json")


class Settings(Record):
    """Places on this machine, and keys of callers. experts.yaml holds the composition itself."""

    config_path: Path = Path("experts.yaml")
    data_dir: Path = Path("data")
    redis_url: SecretStr | None = Field(default=None, description="None: an embedded server in the data folder")
    database_url: SecretStr = SecretStr("sqlite:///data/coe.db")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, description="0 is any free port")
    api_keys: tuple[SecretStr, ...] = ()
    log_level: str = "info"
    log_format: str = "text"
    sends_traces: bool = Field(default=False, description="to a collector of OpenTelemetry")
    learn_every: str = Field(default="1h", description="period of `coe retrain`; `off` for none")

    @property
    def plain_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.api_keys)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from environment variables; a variable that is empty counts as unset.

    Raises:
        ConfigError: a value is not allowed, or a key can be guessed.
    """
    values = {name: value for name, value in environment.items() if value.strip()}
    data_dir = Path(values.get("COE_DATA_DIR", "data"))
    keys = [key.strip() for key in values.get("COE_API_KEYS", "").split(",") if key.strip()]
    redis_url = values.get("REDIS_URL")
    settings = Settings(
        config_path=Path(values.get("COE_CONFIG", "experts.yaml")),
        data_dir=data_dir,
        redis_url=None if redis_url is None else SecretStr(redis_url),
        database_url=SecretStr(values.get("DATABASE_URL", default_database_url(data_dir))),
        host=values.get("COE_HOST", "127.0.0.1"),
        port=parse_number("COE_PORT", values.get("COE_PORT", "8000"), "a port", 0, 65535),
        api_keys=tuple(SecretStr(key) for key in keys),
        log_level=parse_choice("COE_LOG_LEVEL", values.get("COE_LOG_LEVEL", "info"), LOG_LEVELS),
        log_format=parse_choice("COE_LOG_FORMAT", values.get("COE_LOG_FORMAT", "text"), LOG_FORMATS),
        sends_traces=has_collector(values),
        learn_every=values.get("COE_LEARN_EVERY", "1h"),
    )
    if settings.learn_every != OFF:
        parse_period("COE_LEARN_EVERY", settings.learn_every)
    check_strength(settings.host, settings.plain_keys)
    return settings


def on_folder(command: str, settings: Settings) -> list[str]:
    """The words of a command that works on a data folder: `train` fits a router from the seed set and the outcomes and
    makes it the live one, `retrain` is one round of learning."""
    return [command, "--config", str(settings.config_path), "--data-dir", str(settings.data_dir)]


def environment_settings(options: Mapping[str, str] | None = None) -> Settings:
    """Settings of this process; `options` (by variable) win over the environment. Raises as `read_settings` does."""
    return read_settings({**os.environ, **(options or {})})


def secret_variables(config: CoeConfig) -> list[str]:
    """Names of the environment variables that the file names for secrets, sorted."""
    names = {variable for entry in config.engine_entries.values() for variable in entry.variables.values()}
    if (retrieval := config.retrieval) is not None:
        reranker_key = None if retrieval.reranker is None else retrieval.reranker.api_key_env
        names.update(filter(None, (retrieval.pgvector_url_env, reranker_key)))
    return sorted(names.union(*(key_variables(plugin.options) for _, plugin in config.every_plugin.values())))


def key_variables(options: object) -> Iterator[str]:
    """Variables that `api_key_env` names among a plugin's options, and those of the plugins that it is made of."""
    if isinstance(options, Mapping):
        if (variable := options.get("api_key_env")) is not None:
            yield str(variable)
        options = list(options.values())
    if isinstance(options, list | tuple):
        for each in options:
            yield from key_variables(each)


def read_secrets(config: CoeConfig, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Values of the variables that the file names for secrets; those not set are left out."""
    return {name: environment[name] for name in secret_variables(config) if environment.get(name)}


def expert_keys(config: CoeConfig, secrets: Mapping[str, str]) -> dict[str, str]:
    """Keys of experts that nothing for a client may hold."""
    keys = {name: secrets.get(entry.api_key_env or "", "") for name, entry in config.experts.items()}
    return {name: key for name, key in keys.items() if len(key) >= LEAST_KEY_CHARS}


def engine_environment(config: CoeConfig) -> dict[str, str]:
    """The part that engines inherit of this process's environment, before what experts.yaml adds."""
    return without_secrets(os.environ, read_secrets(config))


def without_secrets(environment: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """An environment without what is ours alone: `COE_*`, URLs of services, the variables `named` in experts.yaml, and
    whatever says by its name that it is a secret. Engines run code of others, and read prompts of everybody.

    A deny-list, because what engines do need (CUDA, NCCL, proxies, caches) has too many names.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in FOR_ENGINES
        or not (name in named or name in SERVICES or name.startswith("COE_") or is_secret_name(name))
    }


def is_secret_name(name: str) -> bool:
    """Returns True where a part of a variable's name, between underscores, ends as names of secrets do."""
    return any(part.endswith(SECRET_ENDS) for part in name.upper().split("_"))


def parse_number(variable: str, text: str, meaning: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ConfigError(f"{variable}={text!r} is not {meaning}; allowed: {least} to {most}")
    return int(text)


def parse_choice(variable: str, text: str, allowed: Sequence[str]) -> str:
    if text.lower() not in allowed:
        raise ConfigError(f"{variable}={text!r} is not one of these; allowed: {', '.join(allowed)}")
    return text.lower()


def has_collector(values: Mapping[str, str]) -> bool:
    """Returns True where OpenTelemetry's own variables name a collector of traces; the SDK reads the others itself.

    Raises:
        ConfigError: one asks for another protocol or exporter than OTLP over HTTP.
    """
    named = any(
        variable in values for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    if not named or values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    for variable in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        parse_choice(variable, values.get(variable, "http/protobuf"), ("http/protobuf",))
    exporter = "OTEL_TRACES_EXPORTER"
    return parse_choice(exporter, values.get(exporter, "otlp"), ("otlp", "none")) == "otlp"
