"""Files of an accepted proposal: what a person reads, changes and commits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from base.errors import ConfigError, DataError
from base.text_identity import normalised_text
from training.new_categories import DeadCategory, NewCategory, Proposals

MOST_QUERIES = 200
"""As many as a category of the seed set has, about."""

HEADER = """\
# A proposal of `coe categories propose --accept`, {today}, from {n:,} decisions of router {version}.
# Nothing reads this file. {what}
"""


def read_proposals(path: Path) -> Proposals:
    """Proposals that `coe categories propose` found last. Raises DataError."""
    try:
        return Proposals.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: there are no proposals yet; run `coe categories propose`") from error
    except (OSError, ValidationError) as error:
        raise DataError(f"{path}: cannot be read as proposals; run `coe categories propose` again") from error


def keep_proposals(path: Path, found: Proposals) -> None:
    """Keeps what was found for `coe categories propose --accept`. Raises DataError."""
    try:
        path.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def check_name(name: str) -> None:
    """Raises ConfigError for what cannot be a category, nor a file's name."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"category '{name}' is not allowed; use letters, digits, '-' and '_'")


def write_new(
    folder: Path, new: NewCategory, name: str, texts: Sequence[str], found: Proposals, today: str
) -> tuple[Path, ...]:
    """The category's entry for experts.yaml and, where texts were kept, its queries for a seed folder.

    Raises:
        ConfigError: the name cannot be a category's.
        DataError: there are such files already, or they cannot be written.
    """
    check_name(name)
    seeds = distinct(texts)[:MOST_QUERIES]
    to_do = (
        f"Describe the category, take wrong queries out of {name}.jsonl, move that file to the folder of\n"
        "# `coe train --queries`, add the entry to experts.yaml, grade experts on it (`coe eval collect`), train again."
        if seeds
        else "The log keeps no text, so write queries for it yourself, then add the entry to experts.yaml and train."
    )
    values = {
        "categories": {name: "one line that says what is asked here"},
        "evidence": new.model_dump(exclude={"decision_ids", "name"}, exclude_none=True),
        "examples": seeds[:5],
    }
    head = HEADER.format(today=today, n=found.n_decisions, version=found.router_version, what=to_do)
    files = {folder / f"{name}.yaml": head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}
    if seeds:
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in seeds]
        files[folder / f"{name}.jsonl"] = "".join(lines)
    return write(files)


def write_removal(folder: Path, dead: DeadCategory, found: Proposals, today: str) -> tuple[Path, ...]:
    """Raises DataError as `write_new` does."""
    what = "Take the category out of experts.yaml and its file out of the seed folder, then train again."
    head = HEADER.format(today=today, n=found.n_decisions, version=found.router_version, what=what)
    values = {"remove": dead.name, "evidence": {"decisions": dead.n, "share_below": round(dead.high, 6)}}
    return write({folder / f"remove-{dead.name}.yaml": head + yaml.safe_dump(values, sort_keys=False)})


def distinct(texts: Sequence[str]) -> list[str]:
    """Texts without repetitions (up to case, spacing and punctuation), in order."""
    kept: dict[str, str] = {}
    for text in texts:
        kept.setdefault(normalised_text(text), text.strip())
    return list(kept.values())


def write(files: dict[Path, str]) -> tuple[Path, ...]:
    """All files or none where one is there already."""
    for path in files:
        if path.exists():
            raise DataError(
                f"{path}: is there already; move it away, or choose another folder by --out or name by --as"
            )
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    return tuple(files)
