"""Sentiment, topic, intent and spam: the answer is exactly one of the labels that the prompt gives."""

import re
from collections.abc import Mapping

import numpy as np

from examples.smollm2.recipes.phrasing import dress, misspell, pick, pick_some
from examples.smollm2.recipes.sentences import INTENTS, LIKES, SPAM, SUBJECTS, TOPICS
from examples.smollm2.recipes.task import Example, Split, Task

REQUESTS = {
    Split.TRAIN: (
        "Classify the {what} as {labels}: {text}", "{text}\n\n{what}: {labels}?",
        "Is the {what} of this text {labels}? {text}", "What is the {what}? Options: {labels}.\n\n{text}",
        "Labels: {labels}\nText: {text}\nLabel:", 'Choose one of {labels} for: "{text}"',
        "Pick the right label ({labels}) for this text: {text}", "{text} -> {labels}",
        "Classify this text. Labels: {labels}. Text: {text}", "{labels}? {text}",
        "Please label the following with one of: {labels}\n{text}", "Which {what} fits: {labels}?\n{text}",
        "Classify: {text}\nAllowed labels: {labels}", 'Determine the {what} ({labels}) of "{text}"',
        "Tag this message as {labels}.\n\n{text}", "{what} ({labels}): {text}",
    ),
    Split.HELD_OUT: (
        "Assign one label out of {labels} to this text:\n{text}", "Text: {text}\nPossible {what}: {labels}\nYour pick:",
        "Decide whether this is {labels}: {text}", '"{text}"\nWhich one of {labels} describes it best?',
        "Given the categories {labels}, categorize: {text}", "{text}\n\nAnswer with one of {labels}.",
    ),
}  # fmt: skip
JOINERS = ((", ", " or "), (", ", ", "), (" / ", " / "), ("/", "/"), (", ", ", or "), ("; ", "; "), (", ", " and "))
SENTIMENTS = {
    Split.TRAIN: (
        "{subject} {verdict}.", "{verdict}, that is what I think of {subject}.", "I think {subject} {verdict}",
                  "{subject} {verdict}, to be honest.", "Honestly, {subject} {verdict}!",
                  "We found that {subject} {verdict}."),
    Split.HELD_OUT: ("In my opinion {subject} {verdict}.", "After a week I can say {subject} {verdict}.",
                     "{subject} {verdict}, at least for me."),
}  # fmt: skip
DISTRACTORS = 4


def _list_labels(rng: np.random.Generator, labels: list[str]) -> str:
    """The labels in one of several layouts: "a, b or c", "a / b / c", "[a, b, c]"."""
    inner, last = pick(rng, JOINERS)
    text = inner.join(labels[:-1]) + last + labels[-1]
    return f"[{text}]" if rng.random() < 0.1 and last == inner else text


def _ask(rng: np.random.Generator, split: Split, what: str, text: str, labels: list[str], answer: str) -> Example:
    shown = pick_some(rng, labels, len(labels))
    if rng.random() < 0.15:
        shown, answer = [label.capitalize() for label in shown], answer.capitalize()
    request = pick(rng, REQUESTS[split])
    if rng.random() < 0.1:
        request = misspell(rng, request)
    prompt = request.format(what=what, labels=_list_labels(rng, shown), text=text)
    return Example(dress(rng, split, prompt), answer, labels=tuple(shown))


def _sentiment(rng: np.random.Generator, split: Split) -> Example:
    answer = pick(rng, tuple(LIKES))
    text = pick(rng, SENTIMENTS[split]).format(
        subject=pick(rng, SUBJECTS[split]), verdict=pick(rng, LIKES[answer][split])
    )
    text = text[0].upper() + text[1:]
    labels = list(LIKES)
    if answer != "neutral" and rng.random() < 0.3:
        labels.remove("neutral")
    return _ask(rng, split, pick(rng, ("sentiment", "sentiment", "tone")), text, labels, answer)


def _among(
    rng: np.random.Generator, split: Split, what: str, sentences: Mapping[str, Mapping[Split, tuple[str, ...]]]
) -> Example:
    """One of the sentences with its own label and one to four wrong ones."""
    answer = pick(rng, tuple(sentences))
    wrong = pick_some(rng, [label for label in sentences if label != answer], int(rng.integers(1, DISTRACTORS + 1)))
    return _ask(rng, split, what, pick(rng, sentences[answer][split]), [answer, *wrong], answer)


def _generate(rng: np.random.Generator, split: Split) -> Example:
    kind = pick(rng, ("sentiment", "topic", "intent", "spam", "sentiment", "topic"))
    if kind == "sentiment":
        return _sentiment(rng, split)
    if kind == "topic":
        return _among(rng, split, pick(rng, ("topic", "category", "subject")), TOPICS)
    if kind == "intent":
        return _among(rng, split, pick(rng, ("intent", "intent", "request type")), INTENTS)
    return _among(rng, split, pick(rng, ("type", "class")), SPAM)


def _grade(reply: str, example: Example) -> bool:
    """Exactly one of the labels occurs in the reply, and it is the right one."""
    found = {
        label for label in example.labels if re.search(rf"(?<!\w){re.escape(label.casefold())}(?!\w)", reply.casefold())
    }
    return found == {example.answer}


TASK = Task("labeler", "classification", max_answer_tokens=32, generate=_generate, grade=_grade)
