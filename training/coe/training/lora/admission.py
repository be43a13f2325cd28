"""The admission of an expert: what is trained on what, which model is right on held-out prompts, and where the
expert is added. Its entry in experts.yaml is added as text, so that the file keeps its comments and order."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from coe.base.errors import ConfigError, DataError, allowed_values
from coe.base.whole_files import write_whole
from coe.cli.progress import Progress
from coe.fleet.vllm.addresses import add_to_vllm, read_vllm
from coe.router.answers import AnswerKind, declared_kind
from coe.router.config.composition import CoeConfig, config_text, load_config, parse_text
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.section import PluginConfig, check_name
from coe.training.lora.adapter_fit import Recipe
from coe.training.lora.causal_lm import CausalLm, base_folder
from coe.training.lora.examples import Example, split_examples
from coe.training.lora.lora_options import AdapterOptions
from coe.training.lora.serving import load_adapter

PACKAGES = ("torch", "transformers", "peft", "numpy")
KEPT = {"engine", "model", "url", "replicas", "api_key_env", "engine_args", "engine_env", "params_b"}
KEPT |= {"active_params_b", "context_tokens", "supports"}


@dataclass(frozen=True)
class Candidate:
    """A future expert: on the weights of `base`, for a category, with its adapter in `out`."""

    name: str
    category: str
    file: Path
    data_dir: Path
    config: CoeConfig
    base: str
    answers: AnswerKind
    out: Path

    @property
    def entry(self) -> ExpertConfig:
        """The entry of the expert with the same weights."""
        return self.config.experts[self.base]

    @property
    def folder(self) -> Path:
        return self.file.resolve().parent

    @property
    def cache(self) -> Path:
        """The folder of adapters and dequantised weights, created if needed."""
        folder = self.data_dir / "lora"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def candidate_of(
    name: str, category: str, file: Path, data_dir: Path, options: AdapterOptions, on: str | None
) -> Candidate:
    """Validate everything that can be validated before any work, and build the candidate.

    Raises:
        ConfigError: a name is taken, unknown or invalid, or an expert takes no adapter.
    """
    config = load_config(file)
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if name in config.experts:
        raise ConfigError(f"'{name}' is an expert of {file} already; allowed: a new name")
    if category not in config.categories:
        raise ConfigError(f"--category: unknown '{category}'{allowed_values(category, config.categories)}")
    engines = (Engine.LLAMACPP, Engine.VLLM)
    bases = [each for each, entry in config.experts.items() if entry.adapter is None and entry.engine in engines]
    if on is None and len(bases) != 1:
        raise ConfigError(f"--on: required, because there are {len(bases)} experts without an adapter")
    base = on or bases[0]
    if base not in config.experts or config.experts[base].engine not in engines:
        raise ConfigError(f"--on: '{base}' is not an expert that takes an adapter{allowed_values(base, bases)}")
    declared = config.answers.get(category, PluginConfig(kind="text"))
    kind = declared_kind(PluginConfig(kind=options.answers) if options.answers else declared)
    return Candidate(name, category, file, data_dir, config, base, kind, options.out or data_dir / "lora" / name)


def train_and_compare(
    candidate: Candidate, examples: Sequence[Example], recipe: Recipe, max_tokens: int, progress: Progress
) -> Comparison:
    """Train the adapter and compare it with its base on held-out examples.

    Raises:
        DataError: there are too few examples, or one is too long.
        MissingWeightsError: the base is not on this machine.
    """
    trained, held_out = split_examples(examples)
    progress(f"{candidate.name}: {len(trained)} examples to learn from, {len(held_out)} held out")
    base = base_folder(candidate.base, candidate.entry, candidate.folder, candidate.cache)

    def watch(step: int, loss: float) -> None:
        progress(f"{candidate.name}: step {step} of {recipe.steps}, loss {loss:.3f}")

    try:
        model = CausalLm.trained(base, trained, recipe, candidate.out, candidate.entry.model, watch)
    except ValueError as error:
        raise DataError(f"{candidate.name}: {error}") from error
    prompts = [each.prompt for each in held_out]
    progress(f"{candidate.name}: {len(prompts)} held-out prompts, answered twice")
    before, after = (model.answers(prompts, max_tokens, adapter) for adapter in (None, "default"))
    found = compare(candidate.answers, prompts, [each.answer for each in held_out], before, after)
    record = {
        "expert": candidate.name,
        "category": candidate.category,
        "base_model": candidate.entry.model,
        **asdict(recipe),
        "training_examples": len(trained),
        "held_out": {**asdict(found), "difference": found.difference, "interval": found.interval},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    (candidate.out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return found


async def add_to_engine(candidate: Candidate) -> None:
    """Add the entry to experts.yaml, once a running vLLM has loaded the adapter; `coe config apply` does the rest.

    Raises:
        EngineError: vLLM cannot load it.
        ConfigError: experts.yaml cannot take the entry.
    """
    name, entry = candidate.name, candidate.entry
    if entry.engine is Engine.VLLM:
        for root in entry.roots or read_vllm(candidate.data_dir).urls.get(candidate.base, ()):
            await load_adapter(root, entry, name, candidate.out)
        if entry.url is None:
            add_to_vllm(candidate.data_dir, candidate.base, name)
    added = adapted_entry(entry, name, candidate.out, candidate.folder, f"trained for {candidate.category}")
    add_expert(candidate.file, name, added)


def adapted_entry(base: ExpertConfig, name: str, adapter: Path, folder: Path, description: str) -> dict[str, Any]:
    """Return the base's entry with an adapter, whose path is relative to experts.yaml's folder if it lies below."""
    own = base.model_dump(mode="json", include=KEPT, exclude_defaults=True)
    place = adapter.resolve()
    shown = place.relative_to(folder.resolve()) if place.is_relative_to(folder.resolve()) else place
    served = {} if base.url is None else {"served_model": name}
    return {**own, **served, "adapter": str(shown), "description": description}


def add_expert(file: Path, name: str, entry: dict[str, Any]) -> None:
    """Add an expert after the others.

    Raises:
        ConfigError: the experts are not written as a block, or the file would not be valid.
    """
    text = config_text(file)
    experts = experts_node(text)
    if experts is None or experts.flow_style:
        shown = yaml.safe_dump({name: entry}, sort_keys=False)
        raise ConfigError(f"{file}: its experts are not written as a block; add this by hand:\n{shown}")
    lines = text.splitlines(keepends=True)
    at = experts.end_mark.line if experts.end_mark.column == 0 else len(lines)
    while at and lines[at - 1].strip().startswith(("#",)) | (not lines[at - 1].strip()):
        at -= 1
    margin = " " * experts.start_mark.column
    added = "".join(
        f"{margin}{line}\n" for line in yaml.safe_dump({name: entry}, sort_keys=False, width=1000).splitlines()
    )
    before = "".join(lines[:at])
    changed = before + ("" if before.endswith("\n") else "\n") + added + "".join(lines[at:])
    parse_text(changed, file=str(file))
    write_whole(file, changed, file.stat().st_mode & 0o777)


def experts_node(text: str) -> yaml.MappingNode | None:
    """Return the mapping of experts in the tree of the file; None if there is none."""
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    found = [value for key, value in root.value if key.value == "experts"]
    return found[0] if found and isinstance(found[0], yaml.MappingNode) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The number of prompts on which a new model and the previous one were right. On `gained` only the new one was,
    on `lost` only the previous one."""

    n: int
    before: int
    after: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the difference of shares, by the exact interval (Clopper & Pearson 1934) of the gained
        among the prompts that differ. It is McNemar's exact test as an interval; (0, 0) if none differs."""
        from scipy.stats import binomtest

        differing = self.gained + self.lost
        if not differing:
            return 0.0, 0.0
        low, high = binomtest(self.gained, differing).proportion_ci(method="exact")
        return (2 * low - 1) * differing / self.n, (2 * high - 1) * differing / self.n

    @property
    def is_better(self) -> bool:
        """True if the new model is surely better."""
        return self.interval[0] > 0

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.before / self.n:.0%} before, {self.after / self.n:.0%} now on {self.n} held-out prompts: "
            f"{self.difference:+.1%} [{low:+.1%}, {high:+.1%}]"
        )


def compare(
    kind: AnswerKind, prompts: Sequence[str], right: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> Comparison:
    """Count the answers whose key is that of the right one (n each)."""
    was, now = (
        [is_right(kind, *each) for each in zip(prompts, right, given, strict=True)] for given in (before, after)
    )
    gained = sum(b and not a for a, b in zip(was, now, strict=True))
    lost = sum(a and not b for a, b in zip(was, now, strict=True))
    return Comparison(len(right), sum(was), sum(now), gained, lost)


def is_right(kind: AnswerKind, prompt: str, right: str, given: str) -> bool:
    """Return whether both answers have a key, and the same one."""
    key_of = kind.key_for(prompt)
    key = None if key_of is None else key_of(right)
    return key_of is not None and key is not None and key == key_of(given)
