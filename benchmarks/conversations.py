"""Classifying a conversation against classifying its last ask alone.

    python -m benchmarks.conversations [--data DIR] [--part test] [--out docs/results/conversations.md]

Follow-ups were written by hand (benchmarks/follow_ups): `dev.jsonl` to choose the rule of
router/reading/conversation.py, `test.jsonl` at the same time, and no choice looked at it. Switches are the fresh
prompts, each after a conversation of another category. Public second turns (MT-Bench in Korean, LogicKor) come from
the shared tables, with a router fitted on their single-turn prompts; MT-Bench in English was looked at while the rule
was chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.encoders import Parts, labelled, read_parts
from benchmarks.uncertainty import DATA, fit_request, read_coarse
from coe.base.shares import Z_95
from coe.base.shipped import DEFAULT_CONFIG, shipped_root
from coe.cli.progress import silent
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.router.protocols import Encoder
from coe.router.reading.conversation import in_context
from coe.router.reading.uncertainty import Uncertainty, apply_temperature
from coe.router.section import PluginConfig
from coe.router.types import GENERAL, FloatArray
from coe.training.stage_one import StageOne, embed, fit_stage_one
from coe.training.types import LabelledQuery

WRITTEN = Path(__file__).parent / "follow_ups"
ALPHA = 0.05
SEED = 0
PUBLIC = ("mt_bench", "logickor")
PER_CATEGORY = 300
COLUMNS = ("", "n", "last ask alone", "conversation", "difference", "to `general`", "wrong when sure")


class Conversation(NamedTuple):
    """Asks, oldest first, and the category of the last one."""

    asks: tuple[str, ...]
    category: str


class Judged(NamedTuple):
    """(n,) of the same conversations: the most likely category is right; the router is unsure and asks `general`."""

    right: NDArray[np.bool_]
    unsure: NDArray[np.bool_]


class Stage(NamedTuple):
    """A fitted first stage."""

    encoder: Encoder
    fitted: StageOne
    uncertainty: Uncertainty
    categories: tuple[str, ...]

    def probs(self, vector: FloatArray) -> FloatArray:
        return apply_temperature(self.fitted.classifier.predict_proba(vector).probs, self.fitted.temperature)

    def judge(self, vectors: Sequence[FloatArray], conversations: Sequence[Conversation]) -> Judged:
        probs = [self.probs(vector) for vector in vectors]
        likely = [self.categories[int(each.argmax())] for each in probs]
        scores = [self.uncertainty.score(vector, each)[0] for vector, each in zip(vectors, probs, strict=True)]
        return Judged(
            np.array([name == each.category for name, each in zip(likely, conversations, strict=True)]),
            np.array(scores) > self.uncertainty.threshold,
        )

    def alone(self, conversation: Conversation) -> FloatArray:
        return self.encoder.encode([conversation.asks[-1]])

    def whole(self, conversation: Conversation) -> FloatArray:
        newest_first = conversation.asks[::-1]
        return in_context(
            newest_first, lambda ask: self.encoder.encode([ask]), lambda vector: float(self.probs(vector).max())
        )


def fit(encoder: Encoder, queries: Sequence[LabelledQuery], categories: Sequence[str]) -> Stage:
    request = replace(fit_request(categories), classifier=PluginConfig(kind="logistic"))
    learned = labelled(queries, embed(encoder, [query.text for query in queries], silent), categories)
    fitted = fit_stage_one(learned, request, np.random.default_rng(SEED))
    return Stage(encoder, fitted, Uncertainty.from_state(fitted.uncertainty, alpha=ALPHA), tuple(categories))


def read_written(part: str) -> list[Conversation]:
    lines = (WRITTEN / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Conversation(tuple(row["asks"]), row["category"]) for row in map(json.loads, lines)]


def switches(written: Sequence[Conversation], parts: Parts) -> list[Conversation]:
    """Each fresh ask at the end of a conversation of another category."""
    rng = np.random.default_rng(SEED)
    found = []
    for query in parts.fresh:
        others = [each for each in written if each.category != query.category]
        found.append(Conversation((*others[rng.integers(len(others))].asks, query.text), query.category))
    return found


def read_public(folder: Path, source: str) -> list[tuple[str, Conversation]]:
    """Conversations of two turns, each with its language; their label is of the whole."""
    from pyarrow.parquet import read_table

    found = []
    for row in read_table(folder / source / "prompts.parquet").to_pylist():
        asks = tuple(m["content"].strip() for m in json.loads(row["messages"]) if m["role"] == "user")
        found.append((str(row["language"]), Conversation(asks, str(row["coarse"]))))
    return found


def public_rows(encoder: Encoder, folder: Path) -> list[str]:
    """Second turns of the shared table, with a router fitted on its single-turn prompts."""
    known = {source: read_public(folder, source) for source in PUBLIC}
    seen = {ask for rows in known.values() for _, each in rows for ask in each.asks}
    queries = [query for query in read_coarse(folder)[0].queries if query.text not in seen]
    categories = sorted({query.category for query in queries})
    rng = np.random.default_rng(SEED)
    by_name = {name: [query for query in queries if query.category == name] for name in categories}
    chosen = [own[i] for own in by_name.values() for i in rng.permutation(len(own))[:PER_CATEGORY]]
    stage = fit(encoder, chosen, categories)
    kept = {
        "MT-Bench, Korean, second turn": [each for language, each in known["mt_bench"] if language == "ko"],
        "LogicKor, second turn": [each for _, each in known["logickor"]],
        "MT-Bench, English, second turn (seen while choosing)": [
            each for language, each in known["mt_bench"] if language == "en"
        ],
    }
    return [row_of(name, stage, [each for each in rows if each.category in categories]) for name, rows in kept.items()]


def interval(values: NDArray[np.float64], form: str = ".3f") -> str:
    """A mean with its 95% normal interval."""
    mean, half = float(values.mean()), Z_95 * float(values.std(ddof=1)) / len(values) ** 0.5
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def row_of(name: str, stage: Stage, conversations: Sequence[Conversation]) -> str:
    def judged(vector_of: Callable[[Conversation], FloatArray]) -> Judged:
        return stage.judge([vector_of(each) for each in conversations], conversations)

    alone, whole = judged(stage.alone), judged(stage.whole)

    def change(share: Callable[[Judged], NDArray[np.bool_]]) -> str:
        return f"{share(alone).mean():.3f} -> {share(whole).mean():.3f}"

    cells = (
        name,
        str(len(conversations)),
        interval(alone.right.astype(float)),
        interval(whole.right.astype(float)),
        interval(whole.right.astype(float) - alone.right, "+.3f"),
        change(lambda each: each.unsure),
        change(lambda each: ~each.unsure & ~each.right),
    )
    return f"| {' | '.join(cells)} |"


HEAD = """# What is classified: the conversation, or its last ask

    python -m benchmarks.conversations

Accuracy of the most likely category of the last ask, before any fallback; the share that is sent to `general` because
stage 1 is unsure; and the share of all that is not sent there and misclassified (alpha {alpha}). The router is the
shipped one, fitted on the seed queries without their held-out fifth. Intervals are 95%, differences paired.

"Follow-ups" are {n} conversations written for this ([test.jsonl](../../benchmarks/follow_ups/test.jsonl)) whose
last ask needs what went before ("now only for 2024"). "Switches" are the 300 fresh prompts in 16 languages, each
after one of these conversations on another category: there the last ask alone is all that counts, so what is lost is
the price of the rule. "Single" are the same prompts without a conversation. The public second turns have the label of
their whole conversation, from a router fitted on {per} single-turn prompts per category of the shared tables; many of
them are whole sentences, which the rule lets speak for themselves. The rule and its two constants were chosen on
[dev.jsonl](../../benchmarks/follow_ups/dev.jsonl) and a fifth of the seed queries that a router for this purpose had
not seen ([benchmarks/LOG.md](../../benchmarks/LOG.md)). Both sets of follow-ups have one author;
those of other people will differ.
"""


def main(
    data: Annotated[Path, typer.Option(envvar="COE_BENCH_DATA", help="folder that holds routing/")] = DATA,
    part: Annotated[str, typer.Option(help="dev or test")] = "test",
    out: Annotated[Path | None, typer.Option(help="file of the page")] = None,
) -> None:
    console = Console(width=200)
    encoder = build_encoder(load_config(shipped_root() / DEFAULT_CONFIG).router.encoder)
    parts, written = read_parts(with_fresh=part == "test"), read_written(part)
    stage = fit(encoder, parts.learned, parts.categories)
    known = [query for query in parts.fresh if query.category != GENERAL]
    sets = {
        "Follow-ups": written,
        "Switches": switches(written, replace(parts, fresh=tuple(known))),
        "Single": [Conversation((query.text,), query.category) for query in known],
    }
    rows = [row_of(name, stage, conversations) for name, conversations in sets.items() if conversations]
    if (data / "routing").is_dir():
        rows += public_rows(encoder, data / "routing")
    table = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}", *rows]
    text = "\n".join([HEAD.format(alpha=ALPHA, n=len(written), per=PER_CATEGORY), *table]) + "\n"
    console.print(text, markup=False)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
