"""What `coe eval collect` is told on the command line, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.probe_set import Probe, load_probe_file, load_probes
from router.config import load_config
from router.errors import ConfigError, allowed_values
from training.datasets.model_facts import facts_of_config
from training.types import ModelFacts


@dataclass(frozen=True)
class CollectInputs:
    """Probes to ask, experts to ask, and what is known of the experts."""

    probes: tuple[Probe, ...]
    experts: tuple[str, ...]
    facts: Mapping[str, ModelFacts]


def load_inputs(
    probes: Path | None,
    experts_file: Path | None,
    experts: Sequence[str] | None,
    base_url: str,
    per_category: int | None = None,
) -> CollectInputs:
    """Reads probes (the packaged ones by default; at most `per_category` of each category) and experts.yaml.

    Raises:
        ConfigError: the URL is none, no expert is named, or one is not in the file.
        DataError: as `load_probes`.
    """
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"--base-url: '{base_url}' is not a URL; expected http://HOST:PORT/v1")
    facts = facts_of_config(load_config(experts_file)) if experts_file else {}
    names = tuple(experts or facts)
    if not names:
        raise ConfigError("name the experts: --experts a,b,c, or --experts-file experts.yaml for all of its experts")
    for name in names:
        if experts_file and name not in facts:
            raise ConfigError(f"--experts: unknown expert '{name}'{allowed_values(name, facts)}")
        if names.count(name) > 1:
            raise ConfigError(f"--experts: '{name}' is named {names.count(name)} times")
    loaded = load_probe_file(probes) if probes is not None and probes.is_file() else load_probes(probes)
    return CollectInputs(first_of_each_category(loaded, per_category), names, facts)


def first_of_each_category(probes: Sequence[Probe], count: int | None) -> tuple[Probe, ...]:
    """The first probes of every category, in their order; all of them for None."""
    seen: Counter[str] = Counter()
    kept = []
    for probe in probes:
        seen[probe.category] += 1
        if count is None or seen[probe.category] <= count:
            kept.append(probe)
    return tuple(kept)
