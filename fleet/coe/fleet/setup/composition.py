"""Writes the first experts.yaml around experts that were found: starter.yaml with these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from coe.base.errors import ConfigError
from coe.base.shipped import probes_folder
from coe.base.visible_text import echo
from coe.router.config import parse_text

HEADER = """\
# The composition, as `coe init` wrote it; edit it as you like. docs/configuration.md has every key, and
# `coe check --online` asks the engines whether they have these models.
"""

ABOUT_LISTS = """# The first expert of a list answers; where it fails or rests, the next one does: docs/clients.md
"""

ABOUT_RETRIEVAL = """# /v1/embeddings, /v1/rerank and vector stores: docs/retrieval.md
"""

FROM_HUB = "no endpoint embeds, so the encoder is a model of the hub: pip install 'composition-of-experts[encoders]'"

STATIC = re.compile(r"( *#.*\n)? *- \{kind: static.*\n")
"""The part of the router's encoder that a model of an endpoint replaces, in starter.yaml."""

ENCODER_KEYS = ("kind", "url", "model", "dim", "encoding", "api_key_env")
"""Keys of an embedding expert that an encoder has too."""

RESERVED = ("auto", "base", "reranker", "words")
"""Names that mean routing, and embedding experts of starter.yaml."""

Entry = Mapping[str, object]
"""An expert's keys in experts.yaml."""


@dataclass
class Found:
    """Experts, aliases and embedding experts for experts.yaml.

    `notes` says what has no counterpart, or must be looked at by a person.
    """

    experts: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    embeddings: dict[str, Entry] = field(default_factory=dict)
    reranker: Entry | None = None
    notes: list[str] = field(default_factory=list)

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
        """The first embedding model as an encoder; None where there is none."""
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
    """The text of an experts.yaml: starter.yaml with these experts and aliases.

    Raises:
        ConfigError: no expert was found, or the file would be invalid.
    """
    if not found.experts:
        raise ConfigError("\n".join(["no expert was found", *found.notes]), ["no expert was found", *found.notes])
    parts = sections((Path(__file__).parent / "starter.yaml").read_text(encoding="utf-8"))
    written = {"experts": {name: dict(entry) for name, entry in found.experts.items()}}
    parts["experts"] = as_yaml(written)
    retrieval = yaml.safe_load(parts.pop("retrieval"))
    if encoder := found.encoder:
        kind, options = encoder["kind"], {key: value for key, value in encoder.items() if key != "kind"}
        part = yaml.safe_dump({"kind": kind, "options": options}, default_flow_style=True, sort_keys=False, width=1000)
        parts["router"] = STATIC.sub(lambda _: f"      - {part}", parts["router"])
        retrieval["retrieval"]["encoder"] = encoder
    if found.reranker is not None:
        retrieval["retrieval"]["reranker"] = dict(found.reranker)
    if found.embeddings or found.reranker is not None:
        retrieval["retrieval"]["experts"] |= {name: dict(entry) for name, entry in found.embeddings.items()}
        parts["retrieval"] = ABOUT_RETRIEVAL + as_yaml(retrieval)
    parts["log"] = re.sub(r"\n# .*\s*$", "\n", parts["log"])  # its last comment is about `retrieval`
    if found.aliases:
        aliases = {alias: list(experts) if experts[1:] else experts[0] for alias, experts in found.aliases.items()}
        has_lists = any(experts[1:] for experts in found.aliases.values())
        parts["aliases"] = (ABOUT_LISTS if has_lists else "") + as_yaml({"aliases": aliases})
    text = HEADER + "\n".join(part.strip("\n") + "\n" for part in parts.values())
    parse_text(text, file="experts.yaml")
    return text


def as_yaml(values: object) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


def sections(text: str) -> dict[str, str]:
    """The parts of a YAML file by top-level key, each with its comments inside; those above the first key are left
    out, those between two keys belong to the first."""
    starts = [*re.finditer(r"^(\w+):", text, re.MULTILINE)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    return {found[1]: text[found.start() : end] for found, end in zip(starts, ends, strict=True)}


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
    for line in summary(found.experts, out, prompts):
        echo(line)


def summary(experts: Iterable[str], out: Path, prompts: int) -> list[str]:
    """The last words of the command."""
    names = list(experts)
    return [
        f"wrote {out}: {len(names)} expert{'' if len(names) == 1 else 's'} ({', '.join(names)})",
        f"next: `coe check --config {out} --online`; then `coe up --config {out}`, which asks each expert {prompts} "
        "graded prompts, fits a router from the answers, and serves",
    ]
