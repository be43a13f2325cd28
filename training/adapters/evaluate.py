"""Every expert, the base included, on every task's held-out prompts, through the engine that serves.

    python -m training.adapters.evaluate --base-gguf FILE.gguf --adapters adapters

Writes `scores.json` and `README.md` into the folder of the adapters.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from training.adapters.engine import BASE, Engine, running_engine
from training.adapters.report import render_report
from training.adapters.task import Split, draw_examples, load_task, task_names

# Training uses seed 0; the held-out templates are disjoint anyway.
SEED = 1
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Cell:
    """`right` of `n` held-out prompts of `task` that `expert` answered; the interval is Wilson's, 95%."""

    task: str
    expert: str
    n: int
    right: int
    rate: float
    low: float
    high: float


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95% interval of a rate (Wilson 1927, "Probable inference", eq. for the score interval)."""
    rate, z2 = right / n, Z_95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def score_cell(engine: Engine, task_name: str, expert: str, n: int, log: Path | None) -> Cell:
    """One cell of the table; `log` gets a JSON line for each reply."""
    task = load_task(task_name)
    examples = draw_examples(task, Split.HELD_OUT, n, SEED)
    replies = engine.replies(expert, [example.prompt for example in examples], task.max_answer_tokens)
    marks = [task.grade(reply, example) for reply, example in zip(replies, examples, strict=True)]
    if log is not None:
        with log.open("a") as lines:
            for example, reply, mark in zip(examples, replies, marks, strict=True):
                row = {"expert": expert, "task": task_name, **asdict(example), "reply": reply, "right": mark}
                lines.write(json.dumps(row) + "\n")
    right = sum(marks)
    low, high = wilson_interval(right, n)
    return Cell(task_name, expert, n, right, round(right / n, 4), round(low, 4), round(high, 4))


def score_all(engine: Engine, tasks: list[str], n_own: int, n_others: int, log: Path | None) -> list[Cell]:
    """All cells; a task's own expert and the base answer `n_own` prompts, each other expert the first `n_others`."""
    cells: list[Cell] = []
    for task in tasks:
        for expert in (BASE, *engine.id_of):
            n = n_own if expert in (BASE, load_task(task).expert) else n_others
            cells.append(score_cell(engine, task, expert, n, log))
            print(f"{task:15} {expert:13} {cells[-1].right}/{n}", flush=True)
    return cells


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.adapters.evaluate", description=__doc__)
    parser.add_argument("--base-gguf", type=Path, required=True, help="the quantised weights that are served")
    parser.add_argument("--adapters", type=Path, default=Path("adapters"))
    parser.add_argument("--tasks", nargs="+", choices=task_names(), default=task_names())
    parser.add_argument("--own", type=int, default=100, help="prompts for a task's own expert and the base")
    parser.add_argument("--others", type=int, default=50, help="prompts for every other expert")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", type=Path, help="appends every reply to this JSON-lines file")
    options = parser.parse_args()
    started = time.perf_counter()
    folders = sorted(path.parent for path in options.adapters.glob("*/adapter_config.json"))
    with (
        tempfile.TemporaryDirectory() as work_dir,
        running_engine(options.base_gguf, folders, Path(work_dir), options.threads) as engine,
    ):
        cells = score_all(engine, options.tasks, options.own, options.others, options.log)
    wall_time_s = round(time.perf_counter() - started, 1)
    scores = {"seed": SEED, "wall_time_s": wall_time_s, "cells": [asdict(cell) for cell in cells]}
    (options.adapters / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    render_report(options.adapters)


if __name__ == "__main__":
    main()
