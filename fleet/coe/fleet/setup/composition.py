"""Writes the first experts.yaml around experts that were found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from jinja2 import Environment, StrictUndefined

from coe.base.errors import ConfigError
from coe.base.shipped import probes_folder
from coe.base.visible_text import echo
from coe.router.config.composition import parse_text

FROM_HUB = "no endpoint embeds, so the encoder is a model of the hub: pip install 'composition-of-experts[encoders]'"

ENCODER_KEYS = ("url", "model", "dim", "encoding", "api_key_env")
"""Keys of an embedding expert that an encoder has too."""

RESERVED = ("auto", "base", "reranker", "words")
"""Names that mean routing, and embedding experts of the template."""

Entry = Mapping[str, object]
"""An expert's keys in experts.yaml."""


@dataclass
class Found:
    """Experts, aliases and embedding experts for experts.yaml.

    `notes` says what has no counterpart, or must be looked at by a person. If `is_for_agents`, the categories are
    asks to coding agents.
    """

    experts: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    embeddings: dict[str, Entry] = field(default_factory=dict)
    reranker: Entry | None = None
    notes: list[str] = field(default_factory=list)
    is_for_agents: bool = False

    def add(self, name: str, entry: Entry) -> str:
        """Adds an expert under a name that experts.yaml takes and that is free; returns it."""
        free = self.free_name(name)
        self.experts[free] = entry
        return free

    def add_embedding(self, name: str, entry: Entry) -> None:
        """Adds an embedding expert likewise."""
        self.embeddings[self.free_name(name)] = entry

    @property
    def encoder(self) -> Entry | None:
        """Options of the first embedding model as an encoder; None where there is none."""
        first = next(iter(self.embeddings.values()), None)
        return first and {key: first[key] for key in ENCODER_KEYS if key in first}

    def free_name(self, name: str) -> str:
        wanted = safe_name(name)
        taken = {*self.experts, *self.aliases, *self.embeddings, *RESERVED}
        names = [wanted, *(f"{wanted[:60]}-{i}" for i in range(2, len(taken) + 3))]
        return next(each for each in names if each not in taken)

    def name_also(self, alias: str, experts: Iterable[str]) -> None:
        """Adds a name that clients use for experts, which are tried in order, where experts.yaml takes it."""
        meant = tuple(dict.fromkeys(experts))
        if meant in ((), (alias,)):
            return
        if re.fullmatch(r"[^*\s]{1,128}", alias) and alias not in self.experts:
            self.aliases[alias] = meant
        else:
            self.notes.append(f"clients that ask for '{alias}' must ask for '{meant[0]}': it cannot be an alias")

    def note_unknown(self) -> None:
        """Notes which experts have an unknown context length, which hosted ones an unknown price, and which others no
        price table has, so that nobody knows what they take."""
        hosted = {name: entry for name, entry in self.experts.items() if entry["engine"] == "litellm"}
        unlisted = {name: entry for name, entry in self.experts.items() if "price" not in entry}
        others = {name: entry for name, entry in unlisted.items() if name not in hosted}
        for key, experts, reason in (
            ("context_tokens", self.experts, "set it: prompts above 4096 go elsewhere"),
            ("price", hosted, "set it: budgets and caps count nothing for them"),
            ("supports", others, "set it where they take tools or images: requests with them go elsewhere"),
            ("params_b", others, "set it where budgets of parameters are to count it"),
        ):
            if names := [name for name, entry in experts.items() if key not in entry]:
                self.notes.append(f"{key} is not known of {', '.join(names)}; {reason}")


def safe_name(name: str) -> str:
    """A name of the alphabet that experts.yaml allows, from a model's: its last part, without what is not allowed."""
    last = name.rstrip("/").rpartition("/")[2] or name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-")[:64] or "expert"


def composition_text(found: Found) -> str:
    """The text of an experts.yaml: the template with these experts and aliases.

    Raises:
        ConfigError: no expert was found, or the file would be invalid.
    """
    if not found.experts:
        raise ConfigError("\n".join(["no expert was found", *found.notes]), ["no expert was found", *found.notes])
    aliases = {alias: list(experts) if experts[1:] else experts[0] for alias, experts in found.aliases.items()}
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    environment.filters["yaml"] = as_yaml
    template = environment.from_string(Path(__file__).with_name("starter.yaml.jinja").read_text(encoding="utf-8"))
    text = template.render(found=found, aliases=aliases)
    parse_text(text, file="experts.yaml")
    return text


def as_yaml(values: Mapping[str, object], *, is_flow: bool = False) -> str:
    """Several lines, or one in braces."""
    width = 1000 if is_flow else 110
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=is_flow, width=width)
    return text.rstrip("\n")


def write_composition(found: Found, out: Path) -> None:
    """Writes the file and says what to do next; never over one that is there. Raises ConfigError."""
    text = composition_text(found)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"--out: {out} exists; allowed: a new file") from error
    prompts = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in probes_folder().glob("*.jsonl"))
    for line in found.notes:
        echo(f"note: {line}", to_stderr=True)
    if found.embeddings:
        echo(f"/v1/embeddings has {', '.join(found.embeddings)}; it needs the extra `stores`")
    else:
        echo(f"note: {FROM_HUB}", to_stderr=True)
    names = list(found.experts)
    echo(f"wrote {out}: {len(names)} expert{'s' if names[1:] else ''} ({', '.join(names)})")
    echo(
        f"next: `coe check --config {out} --online`; then `coe up --config {out}`, which asks each expert {prompts} "
        "graded prompts, fits a router from the answers, and serves"
    )
