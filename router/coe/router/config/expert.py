"""An entry of `experts:` in experts.yaml, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from coe.router.prices.cost import Price, Rates
from coe.router.prices.price_list import entry_prices, price_entry
from coe.router.section import HTTP_URL, Billions, EnvironmentName, Seconds, Section


def check_scalar(value: object) -> object:
    """Convert a date to the text that it was, since YAML reads `api_version: 2024-10-21` as a date."""
    if type(value) is date:
        return value.isoformat()
    if isinstance(value, ScalarOption):
        return value
    raise ValueError("must be text, a number, or true or false")


ScalarOption = str | int | float | bool


Flag = Annotated[ScalarOption, BeforeValidator(check_scalar)]


NOT_PARAMS = frozenset({"model", "messages", "stream", "timeout", "max_retries", "api_key", "api_base", "base_url"})
"""Arguments of litellm that `coe` sets itself, some from other keys of the entry."""


class Engine(StrEnum):
    """The program or provider that runs an expert's model."""

    LLAMACPP = "llamacpp"  # a child process of `coe up`: llama.cpp's OpenAI server, all adapters on one base
    VLLM = "vllm"  # `coe experts up` starts it, or `url` names an engine that others run
    OPENAI = "openai"  # anything else that speaks OpenAI's API, at `url`
    LITELLM = "litellm"  # a hosted provider, `model` in litellm's notation (e.g. anthropic/claude-...)
    PLUGIN = "plugin"  # a client that a plugin brings: `model` is its kind (docs/plugins.md)
    ECHO = "echo"  # a fake for tests: answers with the question


class ClientApi(StrEnum):
    """An API beside chat completions that clients may speak, by its path below `/v1`."""

    RESPONSES = "responses"
    MESSAGES = "messages"  # Anthropic's
    COMPLETIONS = "completions"  # text without turns


class Feature(StrEnum):
    """Features of requests that not every model takes."""

    IMAGES = "images"
    AUDIO = "audio"  # also as the answer
    TOOLS = "tools"
    JSON = "json"  # `response_format`


def check_roots(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    for root in (value,) if isinstance(value, str) else value:
        if not HTTP_URL.fullmatch(root):
            raise ValueError("must begin with http:// or https://, in ASCII without spaces and line breaks")
    return value


class ExpertConfig(Section):
    """One expert LLM."""

    engine: Engine
    model: str = Field(min_length=1, description="package:PACKAGE/FILE, a path, a hub, provider's or kind's name")
    adapter: str | None = Field(default=None, description="PEFT LoRA folder on `model`; relative to experts.yaml")
    url: Annotated[str | tuple[str, ...], AfterValidator(check_roots)] | None = Field(
        default=None, description="API root, e.g. http://10.0.0.7:8000/v1; a list: engines that serve the same"
    )
    replicas: int = Field(default=1, ge=1, le=64, description="engines of it that this host starts")
    max_concurrency: int | None = Field(default=None, ge=1, description="requests at once on each engine; others wait")
    params: dict[str, Flag | dict[str, JsonValue]] = Field(
        default_factory=dict, description="fields of its requests, settings of the provider, or options of the plugin"
    )
    params_env: dict[str, EnvironmentName] = Field(
        default_factory=dict, description="those that are secrets, by the environment variable that contains each"
    )
    served_model: str | None = Field(default=None, description="model name that is sent, where it is not `model`")
    api_key_env: EnvironmentName | None = None
    apis: frozenset[ClientApi] = Field(
        default=frozenset(),
        description="what its engine speaks beside chat completions: then no request is translated",
    )
    engine_args: dict[str, Flag] = Field(default_factory=dict, description="further flags of the engine")
    engine_env: dict[str, str] = Field(
        default_factory=dict, description="environment of its engine process, e.g. CUDA_VISIBLE_DEVICES"
    )
    params_b: Billions = Field(default=0.0, description="parameters kept in memory, in billions; 0 = not hosted here")
    active_params_b: Billions | None = Field(
        default=None, gt=0, description="parameters used per token; default params_b"
    )
    gpu_gib: float | None = Field(default=None, gt=0, description="on each of its GPUs, of its base and cache; vllm")
    price: Rates = Field(
        default_factory=dict,
        description="kind of tokens -> USD per million; auto: the prices of litellm's table for `model`",
    )
    price_above: dict[Annotated[int, Field(gt=0)], Rates] = Field(
        default_factory=dict, description="prompt tokens -> prices of requests with more; those it does not name stay"
    )
    price_batch: Rates = Field(default_factory=dict, description="of lines of /v1/batches, where they differ")
    context_tokens: int = Field(default=4096, gt=0)
    supports: frozenset[Feature] = frozenset({Feature.JSON})
    timeout_s: Seconds = Field(default=600.0, gt=0, description="longest silence, before the answer or within it")
    total_timeout_s: ClassVar = 3600.0  # longest time of an answer as a whole
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def with_listed_prices(cls, values: Any) -> Any:
        """Add the prices that the entry leaves to litellm's table."""
        if not isinstance(values, dict) or values.get("price") != "auto":
            return values
        model = values.get("model")
        prices = entry_prices(price_entry(str(model)))
        if not prices:
            raise ValueError(
                f"price: litellm's price table has no model {model!r}; allowed: auto for a model that it has, where "
                "the extra `providers` is installed; or USD per million tokens, {input: 3, output: 15}"
            )
        return {**prices, **values, "price": prices["price"]}

    @property
    def roots(self) -> tuple[str, ...]:
        """API roots of the engines that others run."""
        return (self.url,) if isinstance(self.url, str) else self.url or ()

    @property
    def active_b(self) -> float:
        """Billions of parameters that work on one token."""
        return self.active_params_b or self.params_b

    @cached_property
    def chat_price(self) -> Price:
        return Price(self.price, self.price_above)

    @cached_property
    def is_free(self) -> bool:
        """No kind of token has a price."""
        return not self.chat_price.most(1, 1)

    @cached_property
    def batch_price(self) -> Price:
        return Price(self.price | self.price_batch, self.price_above)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that contain its secrets, by the key that names each."""
        named = {} if self.api_key_env is None else {"api_key_env": self.api_key_env}
        return named | {f"params_env.{key}": variable for key, variable in self.params_env.items()}

    def name_on_engine(self, expert: str) -> str:
        """Return the model name that requests to the expert's engine carry. An engine that others run knows `model`. An
        engine that coe starts serves each expert under the expert's own name, because several experts may share its
        model."""
        return self.served_model or (expert if self.url is None else self.model)

    @property
    def host_group(self) -> str:
        """Experts of one group share the weights of their base, which count once against `hosted_params_b`."""
        return f"{self.engine}:{' '.join(self.roots)}:{self.model}"


def entry_faults(entry: ExpertConfig) -> Iterator[str]:
    """Yield keys that an expert's engine lacks or does not take, each with what is allowed."""
    if entry.engine is Engine.OPENAI and entry.url is None:
        yield "url: required for engine 'openai'"
    if entry.adapter is not None and entry.url is not None and entry.served_model is None:
        yield "served_model: required beside `url` and `adapter`: the name under which that engine serves the adapter"
    if entry.adapter is not None and entry.engine is not Engine.LLAMACPP and entry.engine is not Engine.VLLM:
        yield f"adapter: engine '{entry.engine}' takes no adapter; allowed: llamacpp, vllm"
    if entry.url is not None and entry.engine in (Engine.LLAMACPP, Engine.PLUGIN, Engine.ECHO):
        yield f"url: engine '{entry.engine}' takes no url; allowed: vllm, openai, litellm"
    yield from param_faults(entry)
    if entry.apis and entry.engine in (Engine.LITELLM, Engine.PLUGIN, Engine.ECHO):
        yield f"apis: engine '{entry.engine}' takes none; allowed: llamacpp, vllm, openai"
    if entry.engine is Engine.LLAMACPP and entry.adapter is not None and ClientApi.MESSAGES in entry.apis:
        yield "apis: llama.cpp answers messages by the base, not by the adapter; allowed: responses, completions"
    for key, value in (("engine_args", entry.engine_args), ("engine_env", entry.engine_env)):
        if value and entry.engine is not Engine.VLLM:
            yield f"{key}: engine '{entry.engine}' takes none; allowed: vllm; llamacpp is set up by llamacpp"


def param_faults(entry: ExpertConfig) -> Iterator[str]:
    """Yield each key of `params` and `params_env` that the entry does not take, with what is allowed."""
    if entry.params and entry.engine is Engine.ECHO:
        yield "params: engine 'echo' takes none; allowed: vllm, openai, llamacpp, litellm, plugin"
    if entry.params and entry.apis:
        yield "params: are fields of chat completions; allowed: params or apis"
    if entry.params_env and entry.engine not in (Engine.LITELLM, Engine.PLUGIN):
        yield f"params_env: engine '{entry.engine}' takes none; allowed: litellm, plugin"
    for field, params in (("params", entry.params), ("params_env", entry.params_env)):
        for key in sorted(NOT_PARAMS & params.keys()) if entry.engine is not Engine.PLUGIN else ():
            yield f"{field}.{key}: set by other keys of the entry, or by each request"


def replica_faults(entry: ExpertConfig) -> Iterator[str]:
    """Yield faults of further engines and limits of an expert that cannot have them."""
    if entry.url == ():
        yield "url: an empty list; allowed: one address or more"
    if len(entry.roots) > 1 and not (entry.engine is Engine.OPENAI or entry.engine is Engine.VLLM):
        yield f"url: engine '{entry.engine}' takes one address; allowed with several: vllm, openai"
    if entry.replicas > 1 and (entry.url is not None or entry.engine is not Engine.VLLM):
        yield "replicas: of engine vllm without a `url` alone; further engines of others are addresses in `url`"
    if len(set(entry.roots)) < len(entry.roots):
        yield "url: names an address twice"
