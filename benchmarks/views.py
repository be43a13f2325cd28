"""Reads requests as a whole and by their views: `python -m benchmarks.views --data DIR [--out docs/results/views.md]`.

Material of other kinds and asks about it (pasted/) were written before any fit, and are not shipped either.
Asks are the fresh prompts and the held-out fifth of the seed set, on which nothing was fitted. Material is of retrieval
collections (BEIR layout, in DIR) and of Python's library, none of it shipped. System prompts and asks that mean the
material are of system_prompts.jsonl and asks_about_material.jsonl, written before any run. Both ways are of one fit of
stage 1.
"""

from __future__ import annotations

import gzip
import json
import platform
import random
import re
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import numpy as np
import typer

from benchmarks.encoders import labelled, read_parts
from benchmarks.uncertainty import fit_request
from coe.base.shares import wilson_interval
from coe.base.shipped import DEFAULT_CONFIG, seed_folder, shipped_root
from coe.cli.progress import silent
from coe.router import plugins
from coe.router.build import build_encoder
from coe.router.config.composition import load_config
from coe.router.protocols import ClassifierOf
from coe.router.reading.features import MAX_ASK_CHARS, Reading, read_ask, read_task, under_task
from coe.router.reading.uncertainty import Uncertainty, apply_temperature
from coe.router.section import PluginConfig
from coe.router.types import GENERAL, FloatArray, View
from coe.training.composites import read_composites
from coe.training.fit_inputs import ABOUT_MATERIAL, read_seed
from coe.training.stage_one import LabelledEmbeddings, embed, fit_stage_one

COLLECTIONS = ("covidqa", "medquad", "cosqa", "counsel", "attack", "boolq")
PER_SOURCE, LEAST_CHARS, MOST_CHARS = 150, 300, 3000
SAMPLE, MATERIALS_PER_TASK = 500, 6
PASTED = Path(__file__).with_name("pasted")
SYSTEM_PROMPTS = Path(__file__).with_name("system_prompts.jsonl")
ASKS_ABOUT_MATERIAL = Path(__file__).with_name("asks_about_material.jsonl")
GAPS = ("\n\n", "\n", "\n\n---\n\n", '\n\n"""\n')
HEAD = """# What a request is read from

Written by `python -m benchmarks.views` on {date}, Python {python}: {asks} asks that nothing was fitted on, {pieces} \
pieces of material that are not shipped. *As a whole*: stage 1 reads the user's message, as it did before. *By views*: \
[routing.md](../routing.md#what-a-request-is-read-from) says how. Both are of one fit, at alpha {alpha}; intervals are \
95% Wilson's. Right is the most likely category; served right also needs that stage 1 is sure.

| | n | right, whole | right, views | sent to `general`, whole | views | wrong of the accepted, whole | views |
|---|---|---|---|---|---|---|---|
"""
ALPHA, SEED = 0.05, 0


class Case(NamedTuple):
    """A request with the category of what it asks."""

    text: str
    category: str
    system: str = ""


Read = Callable[[Case], Reading]


def pieces_of(folder: Path, rng: random.Random) -> list[str]:
    """Material: the heads of documents and stretches of source files."""
    found = []
    for name in COLLECTIONS:
        with gzip.open(folder / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            long = [text for line in lines if len(text := json.loads(line)["text"]) > LEAST_CHARS]
        found += [text[: rng.randint(LEAST_CHARS, MOST_CHARS)] for text in rng.sample(long, min(PER_SOURCE, len(long)))]
    return found + list(source_code(rng))


def source_code(rng: random.Random) -> Iterator[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in rng.sample(files, min(PER_SOURCE, len(files))):
        text = path.read_text(encoding="utf-8", errors="ignore")
        start = text.find("\n", rng.randrange(max(len(text) - MOST_CHARS, 1))) + 1
        yield text[start : start + rng.randint(LEAST_CHARS, MOST_CHARS)]


def pasted(ask: str, piece: str, place: str, rng: random.Random) -> str:
    gap = rng.choice(GAPS)
    if place == "before":
        return f"{ask}{gap}{piece}"
    if place == "after":
        return f"{piece}{gap}{ask}"
    middle = piece.find("\n", len(piece) // 2) + 1 or len(piece) // 2
    return f"{piece[:middle]}\n\n{ask}\n\n{piece[middle:]}"


def read_cases(path: Path) -> list[Case]:
    return [Case(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def ask_about_other_kinds(rng: random.Random) -> list[Case]:
    """Asks of pasted/asks.jsonl before, after and amid material of a kind that each can mean."""
    kinds: dict[str, list[str]] = {}
    for kind, text in re.findall(r"(?ms)^%% (\w+)\n(.*?)(?=^%% |\Z)", (PASTED / "material.txt").read_text("utf-8")):
        kinds.setdefault(kind, []).append(text.strip())
    asks = [json.loads(line) for line in (PASTED / "asks.jsonl").read_text("utf-8").splitlines()]
    return [
        Case(pasted(ask["text"], rng.choice(kinds[rng.choice(ask["material"].split())]), place, rng), ask["category"])
        for place in ("before", "after", "between")
        for ask in asks
    ]


def groups(asks: Sequence[Case], pieces: Sequence[str], rng: random.Random) -> dict[str, list[Case]]:
    """The requests of each kind."""
    prompts = [json.loads(line) for line in SYSTEM_PROMPTS.read_text(encoding="utf-8").splitlines()]
    tasks = [each for each in prompts if each["category"]]
    personas = [each["text"] for each in prompts if not each["category"]]
    short = [case for case in asks if len(case.text) <= MAX_ASK_CHARS and case.category != GENERAL]
    sample = rng.sample(short, min(SAMPLE, len(short)))
    lines = [piece.split(". ")[0][:150] for piece in pieces]

    def under(material: Sequence[str]) -> list[Case]:
        each = [task for task in tasks for _ in range(MATERIALS_PER_TASK)]
        return [Case(rng.choice(material), task["category"], task["text"]) for task in each]

    def around(place: str) -> list[Case]:
        return [Case(pasted(case.text, rng.choice(pieces), place, rng), case.category) for case in sample]

    return {
        "bare": list(asks),
        "bare, under a persona": [case._replace(system=rng.choice(personas)) for case in sample],
        "the same without it": sample,
        "ask before the material": around("before"),
        "ask after it": around("after"),
        "ask amid it": around("between"),
        "ask that means the material, before or after it": [
            case._replace(text=pasted(case.text, piece, place, rng))
            for case in read_cases(ASKS_ABOUT_MATERIAL)
            for place in ("before", "after")
            for piece in rng.sample(pieces, MATERIALS_PER_TASK // 2)
        ],
        "ask about material of another kind": ask_about_other_kinds(rng),
        "task in the system prompt, long material": under(pieces),
        "task in the system prompt, one sentence": under(lines),
    }


def main(
    data: Annotated[Path, typer.Option(help="folder of retrieval collections in BEIR layout")],
    out: Annotated[Path | None, typer.Option(help="page to write")] = None,
) -> None:
    rng, parts = random.Random(SEED), read_parts(with_fresh=True)
    encoder = build_encoder(load_config(shipped_root() / DEFAULT_CONFIG).router.encoder)
    categories, asked = parts.categories, read_seed(seed_folder() / ABOUT_MATERIAL)
    texts, about_texts = ([query.text for query in queries] for queries in (parts.learned, asked))
    taught = labelled(parts.learned, embed(encoder, texts, silent), categories)
    labels = np.array([categories.index(query.category) for query in asked], dtype=np.int64)
    about = LabelledEmbeddings(embed(encoder, about_texts, silent), labels)
    detector, made = read_composites(
        encoder.encode,
        [*texts, *about_texts],
        taught.joined(about).embeddings,
        np.random.default_rng(SEED),
        len(about_texts),
    )
    request = replace(fit_request(categories), classifier=PluginConfig(kind="logistic"))
    stage = fit_stage_one(taught, request, np.random.default_rng(SEED), made, about)
    of_parts = cast(ClassifierOf, plugins.build("router.classifiers", "logistic", {}))(categories, stage.part_state)
    doubt = Uncertainty.from_state(stage.uncertainty, alpha=ALPHA)

    def whole(case: Case) -> Reading:
        return Reading(encoder.encode([case.text]))

    def by_views(case: Case) -> Reading:
        reading = read_ask(case.text, encoder.encode, detector)
        if not case.system:
            return reading
        task = read_task(case.system, encoder.encode, detector, lambda vector: float(stage.probs(vector).max()))
        return under_task(task, reading)

    def judged(cases: Sequence[Case], read: Read) -> tuple[FloatArray, FloatArray]:
        """(n,) right, and sent to `general`."""
        readings = [read(case) for case in cases]
        vectors = np.concatenate([reading.vector for reading in readings])
        is_part = np.array([reading.view is not View.WHOLE for reading in readings], dtype=bool)
        probs = stage.probs(vectors)
        if is_part.any():
            probs[is_part] = apply_temperature(of_parts.predict_proba(vectors[is_part]).probs, stage.temperature)
        likely = [categories[int(row)] for row in probs.argmax(axis=1)]
        right = np.array([name == case.category for name, case in zip(likely, cases, strict=True)], dtype=np.float32)
        views = [reading.view for reading in readings]
        limits = np.array([*map(doubt.threshold_of, views)])
        return right, np.asarray(doubt.score(vectors, probs, views) > limits, dtype=np.float32)

    asks = [Case(query.text, query.category) for query in (*parts.held_out, *parts.fresh)]
    pieces = pieces_of(data, rng)
    page = HEAD.format(
        date=date.today(), python=platform.python_version(), asks=len(asks), pieces=len(pieces), alpha=ALPHA
    )
    for name, cases in groups(asks, pieces, rng).items():
        found = [judged(cases, read) for read in (whole, by_views)]
        cells = [share(right.sum(), len(right)) for right, _ in found]
        cells += [share(unsure.sum(), len(unsure)) for _, unsure in found]
        cells += [share(((1 - right) * (1 - unsure)).sum(), (1 - unsure).sum()) for right, unsure in found]
        page += f"| {name} | {len(cases)} | {' | '.join(cells)} |\n"
    print(page) if out is None else out.write_text(page, encoding="utf-8")


def share(count: float, total: float) -> str:
    """A share with its interval."""
    if not total:
        return "-"
    low, high = wilson_interval(count / total, int(total))
    return f"{count / total:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    typer.run(main)
