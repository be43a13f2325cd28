"""Metamorphic cases: a text changed in a way that leaves what is asked as it was, so the decision should stay too.

A family is a kind of `eval.robustness.families`: one file with `Options`, `build` and `EXAMPLES`. Cases follow from
the seed and the text alone, so a text has the same cases in every run, alone or among others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from base.errors import ConfigError, allowed_values
from router import plugins

FAMILIES = "eval.robustness.families"


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed text and the name of what was done, such as `upper` of the family `case`."""

    template: str
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """One changed text of one family."""

    family: str
    template: str
    text: str


class Family(Protocol):
    """Every way of one family to change a text. Pure: randomness comes from `rng` alone."""

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[Variant, ...]:
        """Variants; fewer where some do not apply, none where nothing does."""
        ...


def family_names() -> tuple[str, ...]:
    """All families, sorted."""
    return plugins.kinds(FAMILIES)


def build_families(names: Sequence[str] | None = None) -> dict[str, Family]:
    """Families by name, with their default options; None means all.

    Raises:
        ConfigError: an unknown name.
    """
    known = family_names()
    for name in names or ():
        if name not in known:
            raise ConfigError(f"unknown family of perturbations '{name}'{allowed_values(name, known)}")
    wanted = known if names is None else names
    return {name: cast(Family, plugins.build(FAMILIES, name, {})) for name in wanted}


def make_cases(text: str, seed: int, families: dict[str, Family], per_family: int | None = None) -> tuple[Case, ...]:
    """Cases of one text; those that equal the text, or another case of the same family, are left out.

    Args:
        per_family: at most so many of each family, drawn without replacement; None keeps all.
    """
    cases: list[Case] = []
    for name, family in families.items():
        rng = text_rng(seed, name, text)
        distinct = {variant.text: variant for variant in family(text, rng) if variant.text != text}
        variants = list(distinct.values())
        if per_family is not None and len(variants) > per_family:
            drawn = sorted(rng.choice(len(variants), size=per_family, replace=False))
            variants = [variants[i] for i in drawn]
        cases.extend(Case(name, variant.template, variant.text) for variant in variants)
    return tuple(cases)


def text_rng(seed: int, family: str, text: str) -> np.random.Generator:
    """A generator of its own for every text and family."""
    digest = hashlib.sha256(f"{seed}\0{family}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
