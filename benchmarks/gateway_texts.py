"""Prompts that gateways are measured with: a file of real ones, or some made of the shipped labelled queries.

An encoder keeps what it has seen of a text's words, so few words or one template make it look faster than it is.
"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

from coe.base.shipped import seed_folder
from coe.training.fit_inputs import read_seed

MADE = 50_000


def texts_file(given: Path | None, work: Path) -> Path:
    """A JSON list of prompts: the given one, else one that is made under `work`."""
    if given is not None:
        return given.absolute()
    path = work / "texts.json"
    path.write_text(json.dumps(made_texts()), encoding="utf-8")
    return path


def made_texts() -> list[str]:
    """Prompts that all differ: the first half of the words of a labelled query and the second of another."""
    rng, queries = random.Random(0), [query.text.split() for query in read_seed(seed_folder())]
    found: dict[str, None] = {}
    while len(found) < MADE:
        one, other = rng.choice(queries), rng.choice(queries)
        found[" ".join((*one[: (len(one) + 1) // 2], *other[len(other) // 2 :]))] = None
    return list(found)


def described(path: Path, is_given: bool) -> str:
    """What a page says of the prompts."""
    texts = json.loads(path.read_bytes())
    words = len({word for text in texts for word in text.split()})
    origin = "real prompts (`--texts`)" if is_given else "prompts made of halves of the shipped labelled queries"
    return (
        f"{len(set(texts)):,} distinct {origin} with {words:,} distinct words, "
        f"of {statistics.median(map(len, texts)):.0f} characters at the median"
    )
