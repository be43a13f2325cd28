"""Examples of one category: prompts with the answers to learn, from a file or from the decision log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coe.base.errors import DataError
from coe.base.record_files import OptionalText, Row, Text, json_records
from coe.decision_log.read import read_records
from coe.decision_log.sql_engine import open_log
from coe.router.reading.normalise import normalised_text
from coe.training.types import split_of

FEWEST_TRAINED, FEWEST_HELD_OUT = 16, 12
"""Fewest examples: an adapter must be right alone on six prompts, and its base on none, before it is surely better."""


@dataclass(frozen=True, slots=True)
class Example:
    """A user message and its right answer."""

    prompt: str
    answer: str


class ExampleRow(Row):
    text: Text
    answer: Text
    category: OptionalText = ""


def read_examples(file: Path, category: str) -> list[Example]:
    """Load the examples of a JSON lines file: `text`, `answer`, and optionally `category`, of which others are left
    out.

    Raises:
        DataError: the file cannot be read, or a line is not an example.
    """
    found = []
    for row in (record.read(ExampleRow) for record in json_records(file)):
        if row.category in ("", category):
            found.append(Example(row.text, row.answer))
    return found


def logged_prompts(database_url: str, category: str, since: float, most: int) -> list[str]:
    """Return at most `most` distinct queries of a category since a time (Unix seconds), the newest first.

    Raises:
        DataError: no query has its text, which `log.privacy: text` stores.
    """
    texts: dict[str, str] = {}
    with open_log(database_url) as connection:
        for record in read_records(connection, since):
            decision = record.decision
            if record.text and decision and decision.category == category and record.turns == 1 and not record.is_probe:
                texts[normalised_text(record.text)] = record.text
    if not texts:
        raise DataError(f"the log has no text of category '{category}'; it keeps texts where log.privacy is text")
    return list(texts.values())[::-1][:most]


def split_examples(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Split examples by text into those to learn from and those held out.

    Raises:
        DataError: there are too few of either.
    """
    distinct = list({normalised_text(each.prompt): each for each in examples}.values())
    trained = [each for each in distinct if split_of(each.prompt) != "test"]
    held_out = [each for each in distinct if split_of(each.prompt) == "test"]
    if len(trained) < FEWEST_TRAINED or len(held_out) < FEWEST_HELD_OUT:
        raise DataError(
            f"{len(distinct)} different examples: {len(trained)} to learn from and {len(held_out)} held out; needed: "
            f"{FEWEST_TRAINED} and {FEWEST_HELD_OUT}, so about {5 * FEWEST_HELD_OUT} in all"
        )
    return trained, held_out
