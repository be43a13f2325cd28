"""Surface variety: the same request terse, chatty, polite, misspelled, in several layouts."""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from examples.smollm2.recipes.task import Split

Item = TypeVar("Item")

# Most requests stay undressed; an opener or a closer comes with one in four.
DRESSED = 0.25
MISSPELLED = 0.12
LOWERCASED = 0.15

OPENERS = {
    Split.TRAIN: (
        "Please: ", "Hi! ", "Hey, ", "Hello. ", "Quick question: ", "Can you help? ", "Task: ",
        "Q: ", "I have a question. ", "Hi there,\n", "ok so ", "Need this fast: ", "Question:\n",
        "Good morning. ", "Help me out here. ", "Sorry to bother you. ", "One more: ",
    ),
    Split.HELD_OUT: (
        "Good evening! ", "Hey assistant, ", "Small thing: ", "Could you do this for me?\n",
        "Request: ", "Yo, ", "Dear assistant,\n", "Next one: ", "um ", "I'm stuck. ",
    ),
}  # fmt: skip
CLOSERS = {
    Split.TRAIN: (
        " Thanks!", " thanks", " Please.", " Thank you.", " Just the answer.", "\nAnswer:", " pls",
        " Answer only.", " No explanation.", " Thx", "\nThanks in advance!", " It's for work.",
    ),
    Split.HELD_OUT: (
        " Much appreciated!", " ty", " Only the result.", " Cheers.", "\nReply with the answer alone.",
        " Many thanks.", " Keep it short.", "\nResult:", " It's urgent.",
    ),
}  # fmt: skip


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One item, uniformly; unlike `rng.choice` it keeps the item's own type."""
    return items[int(rng.integers(len(items)))]


def pick_some(rng: np.random.Generator, items: Sequence[Item], n: int) -> list[Item]:
    """`n` distinct items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:n]]


def misspell(rng: np.random.Generator, template: str) -> str:
    """Swaps or drops a letter inside one long word, never inside a `{field}`."""
    spans = [m.span() for m in re.finditer(r"(?<![{\w])[a-z]{5,}(?![}\w])", template)]
    if not spans:
        return template
    start, end = pick(rng, spans)
    i = int(rng.integers(start + 1, end - 2))
    if rng.random() < 0.5:
        return template[:i] + template[i + 1] + template[i] + template[i + 2 :]
    return template[:i] + template[i + 1 :]


def render(rng: np.random.Generator, split: Split, templates: dict[Split, tuple[str, ...]], **fields: object) -> str:
    """One of the split's templates, roughened, filled with `fields` and perhaps dressed."""
    template = pick(rng, templates[split])
    if rng.random() < MISSPELLED:
        template = misspell(rng, template)
    if rng.random() < LOWERCASED:
        template = template.lower()
    return dress(rng, split, template.format(**fields))


def dress(rng: np.random.Generator, split: Split, text: str) -> str:
    """`text` with an opener or a closer around it, or as it is."""
    if rng.random() < DRESSED:
        text = pick(rng, OPENERS[split]) + text
    if rng.random() < DRESSED:
        text = text + pick(rng, CLOSERS[split])
    return text
