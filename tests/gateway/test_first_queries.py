"""The first queries are new to the router."""

from __future__ import annotations

import json
from pathlib import Path

from coe.gateway.first_answers import QUERIES, first_queries
from coe.router.config import load_config

ROOT = Path(__file__).parents[2]


def words(text: str) -> tuple[str, ...]:
    return tuple("".join(c if c.isalnum() else " " for c in text.lower()).split())


def known_texts(folder: Path) -> list[str]:
    rows = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [row if isinstance(row, str) else row["text"] for row in rows]


def test_every_category_of_the_shipped_composition_has_one() -> None:
    categories = load_config(ROOT / "experts.yaml").categories
    assert first_queries(categories) == {name: QUERIES[name] for name in categories}
    assert len(set(QUERIES.values())) == len(categories)


def test_none_of_them_is_a_seed_prompt_or_a_probe() -> None:
    texts = known_texts(ROOT / "examples" / "smollm2" / "seed") + known_texts(ROOT / "examples" / "smollm2" / "probes")
    assert len(texts) > 1000
    known = {words(text) for text in texts}
    assert {name for name, query in QUERIES.items() if words(query) in known} == set()


def test_a_category_that_somebody_adds_is_asked_by_its_description() -> None:
    queries = first_queries({"chat": "greetings", "law": "contracts and statutes"})
    assert list(queries) == ["chat", "law"]
    assert "contracts and statutes" in queries["law"]
