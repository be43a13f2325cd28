"""The probe set: small tasks with known answers that score the experts, so that the category-to-expert map is
measured, not declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from coe.base.errors import ConfigError, DataError
from coe.base.record_files import json_records
from coe.base.shipped import probes_folder
from coe.router.answers import AnswerKind, Score, built_kind
from coe.router.types import Record

_SUFFIX: Final = ".jsonl"


class GraderSpec(BaseModel):
    """The kind of a probe's answers; every other key is an option, which the kind's own `Options` checks."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    kind: str = Field(min_length=1)

    def answers(self) -> AnswerKind:
        """Build the kind of answers; raise ConfigError if the kind or an option is unknown, or an option is
        ill-typed."""
        return built_kind(self.kind, self.__pydantic_extra__)

    def build(self) -> Score:
        """Build the function that grades an answer from 0 to 1; raise ConfigError as `answers` does, or without a
        reference."""
        score = self.answers().score
        if score is None:
            given = ", ".join(self.__pydantic_extra__) or "none"
            raise ConfigError(f"grader '{self.kind}': its options hold no reference value to grade by; got {given}")
        return score


class Probe(Record):
    """A task of the probe set. `id` is the category, a dash and three digits; `text` is the user's message.
    `max_tokens` bounds the answer and therefore the cost, since every expert answers every probe."""

    id: str
    text: Annotated[str, StringConstraints(pattern=r"\S")]
    category: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]*$")]
    grader: GraderSpec
    max_tokens: int = Field(ge=1, le=256)

    @model_validator(mode="after")
    def _id_names_the_category(self) -> Self:
        number = self.id.removeprefix(f"{self.category}-")
        if number == self.id or len(number) != 3 or not number.isdecimal():
            raise ValueError(f"id '{self.id}' must be the category and three digits, as in {self.category}-001")
        return self


def load_probes(folder: Path | None = None) -> tuple[Probe, ...]:
    """Load the probes of a folder of `<category>.jsonl` files, by file name and then line; the shipped ones by default.

    Raises:
        DataError: the folder is missing or empty, a line is not a probe or is in another category's file, or an id
            appears twice.
    """
    source = probes_folder() if folder is None else folder
    if not source.is_dir():
        raise DataError(f"probe folder '{source}' does not exist or is not a folder")
    probes = tuple(probe for file in sorted(source.glob(f"*{_SUFFIX}")) for probe in load_probe_file(file, file.stem))
    if not probes:
        raise DataError(f"probe folder '{source}' holds no probe; expected files named <category>{_SUFFIX}")
    return probes


def load_probe_file(file: Path, category: str | None = None) -> tuple[Probe, ...]:
    """Load the probes of one JSON lines file, all of one category if it is given.

    Raises:
        DataError: a line is not a probe or is of another category, an id appears twice, or the file is not UTF-8.
    """
    found: dict[str, tuple[Probe, str]] = {}
    for row in json_records(file):
        probe = row.read(Probe)
        if category is not None and probe.category != category:
            raise DataError(f"{row.place}: category '{probe.category}' in a file of category '{category}'")
        if probe.id in found:
            raise DataError(f"{row.place}: id '{probe.id}' is taken by {found[probe.id][1]}")
        found[probe.id] = probe, row.place
    return tuple(probe for probe, _ in found.values())
