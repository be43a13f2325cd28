"""Rates at which a kind of answer takes two graded answers for the same wrongly, or for different wrongly.

    python -m benchmarks.answer_kinds [--groups FILE]

Graded answers are those of the shipped experts to the shipped probes, and those of answer_groups.jsonl, written by hand
before the kinds were measured on them: two that are the same and one or two others. Of the former two right answers
should have one key, a right and a wrong one should not; what two wrong answers should have nobody knows. --groups names
a file of your own, with a line {"kind": "code", "prompt": ..., "same": [...], "other": [...]} each.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer

from coe.base.journal import Journal
from coe.base.shares import wilson_interval
from coe.base.shipped import answers_file
from coe.eval.answers import Answer
from coe.eval.grading import kind_of_probe
from coe.eval.probe_set import load_probes
from coe.router import plugins
from coe.router.answers import FAMILY, AnswerKind, KeyOf

GROUPS = Path(__file__).with_name("answer_groups.jsonl")
Ask = Callable[[str, Mapping[str, object]], str | None]


@dataclass(frozen=True)
class Graded:
    """Answers to one prompt. `group` numbers what is the same, -1 for what is wrong in its own way."""

    prompt: str
    answers: tuple[tuple[str, int], ...]


def shipped() -> Iterable[tuple[str, AnswerKind, Graded]]:
    """Kind, how its grader would compare, and the answers of each shipped probe that can be compared."""
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for answer in Journal(answers_file(), Answer).read():
        given[answer.probe_id][answer.expert] = answer.text
    for probe in load_probes():
        own = kind_of_probe(probe, {})
        if own is not None:
            grade = probe.grader.build()
            answers = tuple((text, 0 if grade(text) == 1.0 else -1) for text in given[probe.id].values())
            yield probe.grader.kind, own, Graded(probe.text, answers)


def by_hand(file: Path) -> Iterable[tuple[str, Graded]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        values: dict[str, Any] = json.loads(line)
        answers = [(text, 0) for text in values["same"]] + [(text, -1) for text in values["other"]]
        yield values["kind"], Graded(values["prompt"], tuple(answers))


def counted(cases: Iterable[tuple[KeyOf | None, Graded]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for key, graded in cases:
        counts["prompts"] += 1
        if key is None:
            counts["declined"] += 1
            continue
        keys = [(key(text), group) for text, group in graded.answers]
        counts["answers"] += len(keys)
        counts["no key"] += sum(one is None for one, _ in keys)
        counts["right without a key"] += sum(one is None and group == 0 for one, group in keys)
        counts["right"] += sum(group == 0 for _, group in keys)
        for (one, group), (other, other_group) in combinations([each for each in keys if each[0] is not None], 2):
            if group == other_group == 0:
                counts["both right"] += 1
                counts["false different"] += one != other
            elif 0 in (group, other_group):
                counts["one right"] += 1
                counts["false same"] += one == other
    return counts


RATES = (("false different", "both right"), ("false same", "one right"))


def share(count: Counter[str], part: str, whole: str) -> str:
    if not count[whole]:
        return "none"
    low, high = wilson_interval(count[part] / count[whole], count[whole])
    return f"{count[part]} of {count[whole]} ({100 * low:.0f} to {100 * high:.0f}%)"


def row(kind: str, source: str, count: Counter[str]) -> str:
    cells = [kind, source, f"{count['declined']} of {count['prompts']}", share(count, "right without a key", "right")]
    return "| " + " | ".join([*cells, *(share(count, *rate) for rate in RATES)]) + " |"


def main(
    groups: Annotated[Path, typer.Option(help="graded answers written by people")] = GROUPS,
) -> None:
    """Print both rates of error, with 95% intervals, for every kind."""
    hand, answers = list(by_hand(groups)), list(shipped())
    heads = ("kind", "answers of", "declined", "right ones without a key", *(name for name, _ in RATES))
    print(f"| {' | '.join(heads)} |\n" + "| --- " * len(heads) + "|")
    cases: dict[tuple[str, str], list[tuple[KeyOf | None, Graded]]] = defaultdict(list)
    for kind, own, graded in answers:
        cases[kind, "shipped experts"].append((own.key_for(graded.prompt), graded))
    for kind, graded in hand:
        cases[kind, "people"].append((plugins.build(FAMILY, kind, {}).key_for(graded.prompt), graded))
    for (kind, source), found in sorted(cases.items()):
        print(row(kind, source, counted(found)))


if __name__ == "__main__":
    typer.run(main)
