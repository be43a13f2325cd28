"""Calculator and converter of the demo: the share that they answer of their own kind of probe, and whether of others.

    python -m benchmarks.demo_experts                    shipped and fresh probes, and labelled prompts
    python -m benchmarks.demo_experts --texts FILE.jsonl one {"text": ...} a line; prints every answer, to be read
    python -m benchmarks.demo_experts --base-url URL     the same probes asked of a composition that runs, as `auto` and
                                                       of the language model that is planned without them

The probes in `demo_probes`, and the later ones in `demo_probes_2`, were written after the code and are not to be
tuned on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.request import Request, urlopen

from coe.base.shares import wilson_interval
from coe.base.shipped import seed_folder
from coe.decision_log.decision_record import PROBE_HEADER
from coe.eval.probe_set import Probe, load_probes
from examples.smollm2.experts import calculator, converter

HERE = Path(__file__).parent
FRESH = {"fresh probes": HERE / "demo_probes", "later fresh probes": HERE / "demo_probes_2"}
OWN = {"calculator": "arithmetic", "converter": "conversion"}


Answer = Callable[[str], str | None]


def built() -> dict[str, Answer]:
    return {"calculator": calculator.Calculator().answer, "converter": converter.made().answer}


def report_probes(name: str, probes: Iterable[Probe], experts: Mapping[str, Answer]) -> None:
    """Prints a line an expert: answered and right of its own category, answered elsewhere, with 95% intervals."""
    asked = list(probes)
    for kind, expert in experts.items():
        own = [probe for probe in asked if probe.category == OWN[kind]]
        answers = [(probe, answer) for probe in own if (answer := expert(probe.text)) is not None]
        right = sum(probe.grader.build()(answer) == 1 for probe, answer in answers)
        elsewhere = [probe for probe in asked if probe.category != OWN[kind]]
        wrong_use = sum(expert(probe.text) is not None for probe in elsewhere)
        low, high = wilson_interval(right / max(len(answers), 1), max(len(answers), 1))
        print(
            f"{name}, {kind}: answers {len(answers)} of {len(own)}, {right} right ({low:.3f} to {high:.3f}); "
            f"elsewhere {wrong_use} of {len(elsewhere)}"
        )


def report_served(name: str, probes: Iterable[Probe], base_url: str) -> None:
    """Prints the mean score of both categories through the composition, and of the planned language model alone."""
    own = [probe for probe in probes if probe.category in OWN.values()]
    planned = {category: kind for kind, category in OWN.items()}  # the shipped adapters have the names of the kinds
    for label, model_of in (("auto", dict.fromkeys(planned, "auto")), ("language model alone", planned)):
        scores = []
        for probe in own:
            body = {"model": model_of[probe.category], "messages": [{"role": "user", "content": probe.text}]}
            body |= {"max_tokens": probe.max_tokens, "temperature": 0}
            request = Request(f"{base_url}/chat/completions", json.dumps(body).encode())
            request.add_header("content-type", "application/json")
            request.add_header(PROBE_HEADER, "1")
            with urlopen(request, timeout=120) as response:
                text = json.load(response)["choices"][0]["message"]["content"]
            scores.append(probe.grader.build()(text))
        mean = sum(scores) / len(scores)
        low, high = wilson_interval(mean, len(scores))
        print(f"{name}, {label}: {100 * mean:.1f}% ({100 * low:.1f} to {100 * high:.1f}) of {len(scores)}")


def read_texts(files: Iterable[Path]) -> set[str]:
    """Distinct texts of JSON lines."""
    return {json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").split("\n") if line}


def report_texts(texts: set[str], experts: Mapping[str, Answer]) -> None:
    """Prints every answer, then how many, and the CPU time of an abstention."""
    begin, n_answers = time.process_time(), 0
    for text in sorted(texts):
        for kind, expert in experts.items():
            if (answer := expert(text)) is not None:
                n_answers += 1
                print(f"  {kind}: {text[:100]!r} -> {answer}")
    us = 1e6 * (time.process_time() - begin) / max(len(texts), 1)
    print(f"{n_answers} answers to {len(texts)} texts; {us:.0f} us of CPU time a text for {len(experts)} experts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", help="JSON lines with a field `text`")
    parser.add_argument("--base-url", help="API root of a composition that runs, such as http://127.0.0.1:8000/v1")
    given, experts = parser.parse_args(), built()
    if given.base_url:
        report_served("shipped probes", load_probes(), given.base_url)
        for name, folder in FRESH.items():
            report_served(name, load_probes(folder), given.base_url)
        return
    if given.texts:
        report_texts(read_texts(given.texts), experts)
        return
    report_probes("shipped probes", load_probes(), experts)
    for name, folder in FRESH.items():
        report_probes(name, load_probes(folder), experts)
    report_texts(
        read_texts(Path(str(file)) for file in seed_folder().iterdir() if file.name.endswith(".jsonl")), experts
    )


if __name__ == "__main__":
    main()
