"""How often a kind of answer takes two graded answers for the same wrongly, or for different wrongly.

    python -m benchmarks.answer_kinds

The pairs are the shipped experts' answers to the shipped probes, two experts on one probe. Two right answers should
have one key, a right and a wrong one should not; what two wrong answers should have nobody knows. The probe's own
grader says what is right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

from base.shipped import answers_file
from eval.answer_keys import KIND_OF, answer_kind_of
from eval.answers import read_answers
from eval.probe_set import load_probes


def main() -> None:
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for answer in read_answers(answers_file()):
        given[answer.probe_id][answer.expert] = answer.text
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for probe in load_probes():
        key = answer_kind_of(probe.grader)
        if key is None:
            continue
        kind = KIND_OF[probe.grader.kind]
        grade = probe.grader.build()
        answers = [(key(text), grade(text) == 1.0) for text in given[probe.id].values()]
        counts[kind]["answers"] += len(answers)
        counts[kind]["no key"] += sum(one is None for one, _ in answers)
        counts[kind]["right without a key"] += sum(one is None and right for one, right in answers)
        counts[kind]["right"] += sum(right for _, right in answers)
        for (one, is_right), (other, is_other_right) in combinations([a for a in answers if a[0] is not None], 2):
            if is_right and is_other_right:
                counts[kind]["both right"] += 1
                counts[kind]["false different"] += one != other
            elif is_right != is_other_right:
                counts[kind]["one right"] += 1
                counts[kind]["false same"] += one == other
    print("| kind | answers | without a key | right ones without a key | false different | false same |")
    print("| --- " * 6 + "|")
    for kind, count in sorted(counts.items()):
        print(
            f"| {kind} | {count['answers']} | {share(count, 'no key', 'answers')} | "
            f"{share(count, 'right without a key', 'right')} | {share(count, 'false different', 'both right')} | "
            f"{share(count, 'false same', 'one right')} |"
        )


def share(count: Counter[str], part: str, whole: str) -> str:
    return f"{count[part]} of {count[whole]} ({100 * count[part] / max(count[whole], 1):.1f}%)"


if __name__ == "__main__":
    main()
