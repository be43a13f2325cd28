"""Another way to put the same request: a frame around the text that fits its grammar.

A question takes frames for questions, an English imperative also "Could you please ...", and small talk none, since
"Task: thanks!" would no longer be small talk. What is inside the frame stays as it is, but for the case of its
first letter.
"""

from __future__ import annotations

import re

import numpy as np

from benchmarks.robustness.prose import is_question, is_small_talk

FOR_ALL = {
    "need_help": "I need help with the following: {}",
    "task": "Task: {}",
    "request": "Here is my request: {}",
    "help_with_this": "Could you help me with this? {}",
    "take_care": "Please take care of the following.\n\n{}",
    "assistant": "You are a helpful assistant.\n\n{}",
    "colleague": "A colleague sent me this and I have to hand it in today. {}",
    "tried": "I tried for a while and got nowhere. {}",
}
FOR_QUESTIONS = {
    "question": "Question: {}",
    "quick": "Quick question: {}",
    "wondering": "I was wondering: {}",
    "tell_me": "Please answer this for me: {}",
    "help_with_this": "Could you help me with this? {}",
    "assistant": "You are a helpful assistant.\n\n{}",
    "friend": "A friend asked me this over lunch: {}",
}
FOR_IMPERATIVES = {
    "could_you_please": "Could you please {}",
    "please": "Please {}",
    "like_you_to": "I would like you to {}",
    "can_you": "Can you {}",
    "want_you_to": "I want you to {}",
}
IMPERATIVES = frozenset(
    """add analyse analyze answer assess build calculate change check choose classify clean compare compose compute
    convert correct count create debug decide define describe determine draft edit estimate evaluate explain extract
    figure find fix format generate give group help identify implement improve label list make match multiply name
    optimise optimize outline paraphrase parse pick polish predict proofread prove pull rank recommend refactor rephrase
    return rewrite round say shorten show simplify solve sort split spell subtract suggest sum summarise summarize tag
    tell tidy transform translate turn work write""".split()  # noqa: SIM905
)
POLITE = re.compile(r"(?i)\s*(?:please|(?:could|can|would) you(?: please)?),?\s+(?=\w)")


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """One for each frame that fits; `bare` drops a polite frame that the text has."""
    if not text.strip() or is_small_talk(text):
        return {}
    framed = {}
    first = re.split(r"\W", text.strip(), maxsplit=1)[0]
    if first.lower() in IMPERATIVES and not first[1:].isupper():
        lowered = text.lstrip()[0].lower() + text.lstrip()[1:]
        framed = {name: frame.replace("{}", lowered) for name, frame in FOR_IMPERATIVES.items()}
    frames = FOR_QUESTIONS if is_question(text) else FOR_ALL
    framed |= {name: frame.replace("{}", text) for name, frame in frames.items()}
    polite = POLITE.match(text)
    if polite and re.split(r"\W", text[polite.end() :], maxsplit=1)[0].lower() in IMPERATIVES:
        framed["bare"] = text[polite.end()].upper() + text[polite.end() + 1 :]
    return framed
