"""Files of answers that cost something, written as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from coe.base.errors import DataError

Line = TypeVar("Line", bound=BaseModel)


class Journal(Generic[Line]):
    """An append-only file of JSON lines. A last line that was cut short by a crash is dropped."""

    def __init__(self, path: Path, kind: type[Line]) -> None:
        self._path, self._kind = path, kind

    def read(self) -> list[Line]:
        """Every line, oldest first; an empty list without a file.

        Raises:
            DataError: a line other than a cut last one is not of that kind; with file and line.
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
