"""experts.yaml as pydantic models. `parse_config` is pure; `load_config` reads one file once.

The file is written by people only. It contains no secret: keys are named by environment variable (`api_key_env`) and
read in `gateway/settings.py`.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from coe.base.errors import ConfigError, allowed_values, got_value
from coe.base.fault_words import fault_words
from coe.base.shipped import DEFAULT_CONFIG
from coe.base.yaml_text import MOST_CHARACTERS, read_yaml
from coe.router import plugins
from coe.router.answers import declared_kind
from coe.router.config.expert import Engine, ExpertConfig, Flag, entry_faults, replica_faults
from coe.router.config.feedback import FeedbackConfig, JudgeConfig
from coe.router.config.gateway import GatewayConfig
from coe.router.config.log import LogConfig
from coe.router.config.policy import BEST, UNKNOWN_LANGUAGES, PolicyConfig
from coe.router.config.residency import ResidencyConfig, residency_problems
from coe.router.config.retrieval import RetrievalConfig
from coe.router.plugins import Family
from coe.router.section import AUTO, Name, PluginConfig, Section
from coe.router.strategies.agree import StrategyName
from coe.router.types import GENERAL

M = TypeVar("M", bound=BaseModel)


class RouterConfig(Section):
    """Stage 1 and the promise it keeps."""

    encoder: PluginConfig
    classifier: PluginConfig
    scorer: PluginConfig = PluginConfig(kind="map")
    alpha: float = Field(
        default=0.1, gt=0, lt=1, description="of queries not sent to general, at most this share is misclassified"
    )


class LlamaCppConfig(Section):
    """The embedded engine."""

    slots: int = Field(default=4, ge=1, le=64, description="requests generated at once")
    context_tokens: int = Field(default=2048, ge=256, description="per slot")
    threads: int | None = Field(default=None, ge=1, description="default: the machine's cores less one, at least 1")


class VllmConfig(Section):
    """Settings with which `coe experts up` starts vLLM."""

    python: str = Field(default="python3", description="interpreter that has vllm installed")
    args: dict[str, Flag] = Field(default_factory=dict, description="flags for every process")
    env: dict[str, str] = Field(default_factory=dict)
    gpus: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="number of each GPU to use -> its memory in GiB; default: what nvidia-smi lists",
    )
    first_port: int = Field(default=8101, ge=1, le=65535)
    start_timeout_s: ClassVar = 1800.0  # a model of 70 billion parameters from a slow disk, compiled


MAX_EXAMPLE_CHARS = 4000
"""Characters of an example, as many as the router reads of an ask."""

AliasName = Annotated[str, Field(pattern=r"^[^*\s]*\*?$", min_length=1, max_length=128)]
Meant = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]
"""Names that an alias means: one, or experts that are tried in order."""


class CoeConfig(Section):
    """The whole of experts.yaml."""

    categories: dict[Name, str] = Field(min_length=2, description="name -> what belongs to it")
    examples: dict[str, tuple[Annotated[str, Field(min_length=1, max_length=MAX_EXAMPLE_CHARS)], ...]] = Field(
        default_factory=dict, description="category -> a few queries of it, learned beside the labelled ones"
    )
    experts: dict[Name, ExpertConfig] = Field(min_length=1)
    router: RouterConfig
    policies: dict[Name, PolicyConfig] = Field(default_factory=lambda: {"default": PolicyConfig()})
    aliases: dict[AliasName, Meant] = Field(
        default_factory=dict,
        description="further names for `model`; a last `*` takes the rest of a name -> auto, auto:POLICY, expert, or "
        "a list of experts, the next where one cannot serve",
    )
    answers: dict[str, PluginConfig] = Field(
        default_factory=dict, description="category -> kind of its answers, by which a strategy compares them"
    )
    llamacpp: LlamaCppConfig = LlamaCppConfig()
    vllm: VllmConfig = VllmConfig()
    gateway: GatewayConfig = GatewayConfig()
    log: LogConfig = LogConfig()
    retrieval: RetrievalConfig | None = None
    feedback: FeedbackConfig = FeedbackConfig()
    judge: JudgeConfig | None = None
    residency: ResidencyConfig | None = None
    plugins: dict[Family, dict[Name, str]] = Field(
        default_factory=dict,
        description="family -> kind -> your own module: a path that ends in .py, relative to experts.yaml, or a dotted "
        "name",
    )

    @property
    def every_plugin(self) -> dict[str, tuple[str, PluginConfig]]:
        """Every plugin that reads queries or documents, by its key, with its family."""
        parts = ("encoder", "classifier", "scorer")
        found = {f"router.{part}": (f"router.{part}s", getattr(self.router, part)) for part in parts}
        if self.retrieval is not None:
            found["retrieval.encoder"] = ("router.encoders", self.retrieval.encoder)
            for name, plugin in self.retrieval.experts.items():
                found[f"retrieval.experts.{name}"] = ("retrieval.experts", plugin)
        return found

    @property
    def engine_entries(self) -> dict[str, ExpertConfig]:
        """Entries of pooling engines, then of experts."""
        return {**({} if self.retrieval is None else self.retrieval.engines), **self.experts}

    def entry_key(self, name: str) -> str:
        """Return the key path of an expert's or a pooling engine's entry."""
        return f"experts.{name}" if name in self.experts else f"retrieval.engines.{name}"

    @property
    def vllm_groups(self) -> list[tuple[int, tuple[str, ...]]]:
        """The first port of each vLLM process that a host starts, with its experts: those of one model and arguments.
        Replicas of a process take the ports that follow."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for name, entry in self.engine_entries.items():
            if entry.engine is Engine.VLLM and entry.url is None:
                args, env = sorted(entry.engine_args.items()), sorted(entry.engine_env.items())
                groups.setdefault((entry.model, entry.replicas, *args, *env), []).append(name)
        counts = (self.engine_entries[names[0]].replicas for names in groups.values())
        ports = accumulate(counts, initial=self.vllm.first_port)
        return [(port, tuple(names)) for port, names in zip(ports, groups.values(), strict=False)]

    @property
    def learned_categories(self) -> tuple[str, ...]:
        """Categories that stage 1 can name: all but `general`."""
        return tuple(name for name in self.categories if name != GENERAL)


MOST_FAULTS = 100
"""Shown of one file: 50,000 would be a message of 20 MB."""


def parse_config(
    values: object, *, file: str = "experts.yaml", folder: Path | None = None, started: CoeConfig | None = None
) -> CoeConfig:
    """Parse a configuration from plain values; names are resolved against each other, and its plugins can be loaded.

    Args:
        folder: where paths of plugins begin; default: the folder of `file`.
        started: the configuration that the gateway started with. No other plugins are taken: a caller who may change
            the
            rest could load code by them.

    Raises:
        ConfigError: with one problem per fault, each naming file, key path, value and allowed values.
    """
    config = checked_values(CoeConfig, values, file)
    places = plugins.absolute(config.plugins, folder or Path(file).parent)
    problems = list(plugins.taken_names(places))
    if started is not None and places != started.plugins:
        problems.append("plugins: take a restart with another experts.yaml; allowed: as the gateway started with them")
    if not problems:
        plugins.declare(places)
        problems = unresolved_names(config)
    if problems:
        problems = [f"{file}: {line}" for line in problems]
        raise ConfigError("\n".join(problems), problems)
    return config.model_copy(update={"plugins": places, "retrieval": addressed_retrieval(config)})


def addressed_retrieval(config: CoeConfig) -> RetrievalConfig | None:
    """Return the section with endpoints in place of its engines' names. Raises ValueError as `with_addresses`."""
    if config.retrieval is None:
        return None
    roots = {name: f"http://127.0.0.1:{port}/v1" for port, names in config.vllm_groups for name in names}
    named = {name: entry.roots[0] for name, entry in config.retrieval.engines.items() if entry.roots}
    return config.retrieval.with_addresses(roots | named)


def checked_values(model: type[M], values: object, file: str) -> M:
    """Parse a file's model from its plain values. Errors are those of `parse_config`."""
    if not isinstance(values, Mapping):  # the values are not shown: it may be a file of keys, named by mistake
        got = "nothing" if values is None else "a list" if isinstance(values, list) else "a single value"
        raise ConfigError(f"{file}: the top level must be a mapping, got {got}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        problems = [fault_line(file, fault, model) for fault in faults[:MOST_FAULTS]]
        if len(faults) > MOST_FAULTS:
            problems.append(f"{file}: {len(faults) - MOST_FAULTS:,} more faults")
        raise ConfigError("\n".join(problems), problems) from error


def load_config(path: Path) -> CoeConfig:
    """Read and parse one file, or raise ConfigError if the file is missing, is not YAML, or `parse_config` refuses
    it."""
    return parse_text(config_text(path), file=str(path))


def config_text(path: Path) -> str:
    """Read one file, or raise ConfigError if it is missing, unreadable or too large."""
    try:
        if path.stat().st_size > MOST_CHARACTERS:
            raise ConfigError(f"{path}: has {path.stat().st_size:,} bytes; allowed: up to {MOST_CHARACTERS:,}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        is_ours = isinstance(error, FileNotFoundError) and path.name == DEFAULT_CONFIG.name
        hint = "; `coe init` writes one, --config (COE_CONFIG) names another" if is_ours else ""
        raise ConfigError(f"{path}: cannot be read ({error.strerror}){hint}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def parse_text(text: str, *, file: str, folder: Path | None = None, started: CoeConfig | None = None) -> CoeConfig:
    """Parse a configuration from the text of a file. It raises ConfigError if it is not YAML, or `parse_config` refuses
    it."""
    return parse_config(read_yaml(text, file=file), file=file, folder=folder, started=started)


def fault_line(file: str, fault: Any, model: type[BaseModel]) -> str:
    """Render one fault that pydantic found in a file as `file: key.path: what is wrong (got value); allowed`."""
    is_key = fault["loc"][-1:] == ("[key]",)  # pydantic's word for the key itself, behind the key as text
    path = ".".join(str(part) for part in fault["loc"][: -2 if is_key else None])
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        return f"{file}: {path}: unknown key{allowed_values(str(key), fields_at(model, parents))}"
    got = "" if fault["type"] == "missing" else got_value(fault)
    return f"{file}: {path}: {'key ' if is_key else ''}{fault_words(fault)}{got}"


def fields_at(model: type[BaseModel], path: Sequence[str | int]) -> tuple[str, ...]:
    """Return the keys allowed at a key path of a file."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        elif get_origin(annotation) in (dict, tuple):
            annotation = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return tuple(annotation.model_fields)
    return ()


def unresolved_names(config: CoeConfig) -> list[str]:
    """Return faults between parts of the file: names that do not resolve and entries that need another key."""
    problems: list[str] = []
    if config.judge is not None:
        problems += unknown("judge.expert: unknown expert", config.judge.expert, config.experts)
    if GENERAL not in config.categories:
        problems.append(f"categories: '{GENERAL}' is required: uncertain queries go there")
    if "default" not in config.policies:
        problems.append(f"policies: 'default' is required; got: {', '.join(config.policies)}")
    if UNKNOWN_LANGUAGES in config.categories:
        problems.append(f"categories.{UNKNOWN_LANGUAGES}: is reserved for pins; allowed: another name")
    for name in set(config.experts) & {"auto"}:
        problems.append(f"experts.{name}: 'auto' is reserved for routing")
    for name, policy in config.policies.items():
        if (scorer := config.router.scorer.kind) != "map" and len(averages := policy.budgets.averages) > 1:
            problems.append(
                f"policies.{name}.budgets: {', '.join(averages)} are {len(averages)} averages, and scorer '{scorer}' "
                "keeps one; allowed: one of them, or scorer 'map'"
            )
        problems += floor_problems(config, name, policy)
        for category, expert in policy.pins.items():
            where = f"policies.{name}.pins.{category}"
            problems += unknown(f"{where}: unknown category", category, (*config.categories, UNKNOWN_LANGUAGES))
            problems += unknown(f"{where}: unknown expert", expert, config.experts)
    for name in config.examples:
        problems += unknown("examples: unknown category", name, config.categories)
    problems += alias_problems(config)
    problems += strategy_problems(config)
    on_vllm = [name for name, entry in config.engine_entries.items() if entry.engine is Engine.VLLM]
    if config.residency is not None:
        problems += residency_problems(config.residency, on_vllm)
    for name, entry in config.engine_entries.items():
        key = config.entry_key(name)
        problems += [f"{key}.{fault}" for fault in (*entry_faults(entry), *replica_faults(entry))]
    problems += engine_problems(config)
    return problems


def engine_problems(config: CoeConfig) -> Iterator[str]:
    """Yield a fault for each pooling engine that has an expert's name, and for a name that no engine has."""
    if config.retrieval is None:
        return
    for name in config.retrieval.engines.keys() & config.experts.keys():
        yield f"retrieval.engines.{name}: is the name of an expert; allowed: another"
    try:
        addressed_retrieval(config)
    except ValueError as error:
        yield f"retrieval.{error}"


def floor_problems(config: CoeConfig, name: str, policy: PolicyConfig) -> Iterator[str]:
    """Yield faults of a floor: an unknown reference, one with a floor itself, or a scorer that predicts queries."""
    floor, scorer = policy.quality_floor, config.router.scorer.kind
    if floor is None:
        return
    plain = [other for other, each in config.policies.items() if each.quality_floor is None]
    where, named = f"policies.{name}.quality_floor", [BEST, *config.experts, *plain]
    yield from unknown(f"{where}.of: neither an expert nor a policy without a floor:", floor.of, named)
    if scorer != "map":
        yield f"{where}: is solved for a map, and scorer '{scorer}' predicts every query; allowed: scorer 'map'"


def unknown(problem: str, name: str, known: Collection[str]) -> Iterator[str]:
    """Yield the problem with the name and what is allowed if the name is not known."""
    if name not in known:
        yield f"{problem} '{name}'{allowed_values(name, known)}"


def alias_problems(config: CoeConfig) -> Iterator[str]:
    """Yield faults of aliases that hide a name, or that mean none."""
    names = [AUTO, *(f"{AUTO}:{policy}" for policy in config.policies), *config.experts]
    for alias, meant in config.aliases.items():
        if alias in names:
            yield f"aliases.{alias}: is a name already; allowed: others"
        if len(meant) == 1:
            yield from unknown(f"aliases.{alias}: unknown model", meant[0], names)
            continue
        for i, expert in enumerate(meant):
            yield from unknown(f"aliases.{alias}.{i}: unknown expert", expert, config.experts)
            if expert in meant[:i]:
                yield f"aliases.{alias}.{i}: '{expert}' is in the list already; allowed: each expert once"


def strategy_problems(config: CoeConfig) -> Iterator[str]:
    """Yield faults of strategies that cannot ask several experts, and of answers that cannot be compared."""
    for name, policy in config.policies.items():
        if policy.strategy is StrategyName.SINGLE and policy.max_calls is not None:
            yield f"policies.{name}.max_calls: strategy 'single' asks one expert; allowed beside: agree"
        if policy.strategy is StrategyName.AGREE and len(config.experts) < 3:
            got = len(config.experts)
            yield f"policies.{name}.strategy: 'agree' needs three experts or more; got: {got}; allowed: single"
    for category, kind in config.answers.items():
        if category not in config.categories:
            yield f"answers.{category}: unknown category{allowed_values(category, config.categories)}"
        try:
            declared_kind(kind)
        except ConfigError as error:
            yield from (f"answers.{category}: {problem}" for problem in error.problems)
