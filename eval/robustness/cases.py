"""Metamorphic cases: a text changed in a way that leaves what is asked as it was, so the decision should stay too.

A family is a file of `eval.robustness.families` with a function `variants`. Cases follow from the seed and the text
alone, so a text has the same cases in every run, alone or among others.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from base.errors import ConfigError, allowed_values
from router import plugins

FAMILIES = "eval.robustness.families"


Family = Callable[[str, np.random.Generator], Mapping[str, str]]
"""Changes a text in every way of one family, by the name of what was done, such as `upper` of the family `case`; fewer
where some do not apply, none where nothing does. Pure: randomness comes from the generator alone."""


@dataclass(frozen=True, slots=True)
class Case:
    """One changed text of one family."""

    family: str
    template: str
    text: str


def family_names() -> tuple[str, ...]:
    """All families, sorted."""
    return plugins.kinds(FAMILIES)


def build_families(names: Sequence[str] | None = None) -> dict[str, Family]:
    """Families by name; None means all.

    Raises:
        ConfigError: an unknown name.
    """
    known = family_names()
    for name in names or ():
        if name not in known:
            raise ConfigError(f"unknown family of perturbations '{name}'{allowed_values(name, known)}")
    wanted = known if names is None else names
    return {name: importlib.import_module(f"{FAMILIES}.{name}").variants for name in wanted}


def make_cases(text: str, seed: int, families: dict[str, Family], per_family: int | None = None) -> tuple[Case, ...]:
    """Cases of one text; those that equal the text, or another case of the same family, are left out.

    Args:
        per_family: at most so many of each family, drawn without replacement; None keeps all.
    """
    cases: list[Case] = []
    for name, family in families.items():
        rng = text_rng(seed, name, text)
        template_of = {changed: template for template, changed in family(text, rng).items() if changed != text}
        found = [Case(name, template, changed) for changed, template in template_of.items()]
        if per_family is not None and len(found) > per_family:
            found = [found[i] for i in sorted(rng.choice(len(found), size=per_family, replace=False))]
        cases.extend(found)
    return tuple(cases)


def text_rng(seed: int, family: str, text: str) -> np.random.Generator:
    """A generator of its own for every text and family."""
    digest = hashlib.sha256(f"{seed}\0{family}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
