"""What was collected so far, one JSON line a graded answer, so that an interrupted collection goes on where it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field, ValidationError

from eval.probe_set import Probe
from router.errors import DataError
from router.types import Record


class GradedAnswer(Record):
    """One expert's graded answer to one probe, or its failure, which scores 0; `failure` says which. `probe_hash` ties
    it to the probe as it was."""

    probe_id: str
    probe_hash: str
    expert: str
    score: float = Field(ge=0, le=1)
    prompt_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    latency_ms: float = Field(ge=0)
    failure: str = ""


def probe_hash(probe: Probe) -> str:
    """First 16 hex digits of a SHA-256 over all of a probe, its grader included."""
    return hashlib.sha256(probe.model_dump_json().encode()).hexdigest()[:16]


class Journal:
    """An append-only file. A last line that was cut short by a crash is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[GradedAnswer]:
        """Every answer, oldest first; none when there is no file.

        Raises:
            DataError: a line other than a cut last one is no graded answer; with file and line.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._path.write_bytes(whole)
        answers = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                answers.append(GradedAnswer.model_validate_json(line))
            except ValidationError as error:
                raise DataError(
                    f"{self._path}:{number}: is not a graded answer ({error.error_count()} faults); "
                    "remove the line, or the file to collect everything again"
                ) from error
        return answers

    def append(self, answer: GradedAnswer) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(answer.model_dump_json().encode() + b"\n")
