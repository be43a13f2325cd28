"""Generic JSON lines: one object a score, with prompt (a text or a list of messages), category, model and score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from base.record_files import json_lines
from training.datasets.flat_rows import OPTIONS as OPTIONS
from training.datasets.flat_rows import flat_rows
from training.datasets.import_formats import ImportFile, ImportOptions
from training.datasets.outcome_rows import LeftOut, OutcomeRow

PATTERNS = ("*.jsonl",)


def read(files: Sequence[ImportFile], options: ImportOptions) -> Iterator[OutcomeRow | LeftOut]:
    """Raises DataError, ConfigError."""
    for file in files:
        yield from flat_rows(json_lines(file.path), options, file.model)
