"""The queries of the demo are new to its router."""

from __future__ import annotations

import json
from pathlib import Path

from coe.router.config.composition import load_config
from examples.smollm2.ask import QUERIES

ROOT = Path(__file__).parents[3]


def words(text: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in text.lower()).split())


def known_texts(folder: Path) -> list[str]:
    rows = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [row if isinstance(row, str) else row["text"] for row in rows]


def test_every_category_of_the_shipped_composition_has_one() -> None:
    assert list(QUERIES) == list(load_config(ROOT / "experts.yaml").categories)
    assert len(set(QUERIES.values())) == len(QUERIES)


def test_none_of_them_is_a_seed_prompt_or_a_probe() -> None:
    texts = [text for name in ("seed", "probes") for text in known_texts(ROOT / "examples" / "smollm2" / name)]
    assert len(texts) > 1000
    known = {words(text) for text in texts}
    assert {name for name, query in QUERIES.items() if words(query) in known} == set()
