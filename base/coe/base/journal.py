"""Append-only files for results that cost something, such as answers of paid experts."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from coe.base.errors import DataError

Line = TypeVar("Line", bound=BaseModel)


class Journal(Generic[Line]):
    """An append-only file of JSON lines. A last line that a crash cut short is dropped."""

    def __init__(self, path: Path, kind: type[Line]) -> None:
        self._path, self._kind = path, kind

    def read(self) -> list[Line]:
        """Return every line, oldest first; an empty list if there is no file.

        Raises:
            DataError: a line other than a cut last one is invalid; the message names file and line.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._path.write_bytes(whole)
        return [self._parsed(line, number) for number, line in enumerate(whole.splitlines(), start=1)]

    def _parsed(self, line: bytes, number: int) -> Line:
        try:
            return self._kind.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{self._path}:{number}: is not an answer ({error.error_count()} faults); "
                "remove the line, or the file to collect everything again"
            ) from error

    def append(self, *lines: Line) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"".join(line.model_dump_json(exclude_defaults=True).encode() + b"\n" for line in lines))
