"""Every expert, the base included, on every task's held-out prompts, through the engine that serves.

    python -m examples.smollm2.recipes.evaluate --base-gguf FILE.gguf --adapters examples/smollm2/adapters

Writes `scores.json` and `README.md` into the folder of the adapters.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from coe.base.shares import wilson_interval
from examples.smollm2.recipes.engine import BASE, Engine, running_engine
from examples.smollm2.recipes.report import render_report
from examples.smollm2.recipes.task import Split, draw_examples, load_task, task_names

# Training uses seed 0; the held-out templates are disjoint anyway.
SEED = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """`right` of `n` held-out prompts of `task` that `expert` answered in `wall_time_s`; Wilson's 95% interval."""

    task: str
    expert: str
    n: int
    right: int
    rate: float
    low: float
    high: float
    wall_time_s: float


def score_cell(engine: Engine, task_name: str, expert: str, n: int, log: Path | None) -> Cell:
    """One cell of the table; `log` gets a JSON line for each reply."""
    task = load_task(task_name)
    examples = draw_examples(task, Split.HELD_OUT, n, SEED)
    started = time.perf_counter()
    replies = engine.replies(expert, [example.prompt for example in examples], task.max_answer_tokens)
    wall_time_s = round(time.perf_counter() - started, 1)
    marks = [task.grade(reply, example) for reply, example in zip(replies, examples, strict=True)]
    if log is not None:
        with log.open("a") as lines:
            for example, reply, mark in zip(examples, replies, marks, strict=True):
                row = {"expert": expert, "task": task_name, **asdict(example), "reply": reply, "right": mark}
                lines.write(json.dumps(row) + "\n")
    right = sum(marks)
    low, high = wilson_interval(right / n, n)
    return Cell(task_name, expert, n, right, round(right / n, 4), round(low, 4), round(high, 4), wall_time_s)


def prompts_for(task: str, expert: str, n_own: int, n_others: int) -> int:
    """`n_own` for the task's own expert and for the base, `n_others` (the first of the same) for the rest."""
    return n_own if expert in (BASE, load_task(task).expert) else n_others


def merge_cells(old: list[Cell], new: list[Cell]) -> list[Cell]:
    """All cells by task and expert, the base first; a new one replaces an old one of the same place."""
    cell_of = {(cell.task, cell.expert): cell for cell in (*old, *new)}
    return sorted(cell_of.values(), key=lambda cell: (cell.task, cell.expert != BASE, cell.expert))


def read_cells(path: Path) -> list[Cell]:
    """The cells of an earlier run; none if there was none."""
    return [Cell(**cell) for cell in json.loads(path.read_text())["cells"]] if path.exists() else []


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.smollm2.recipes.evaluate", description=__doc__)
    parser.add_argument("--base-gguf", type=Path, required=True, help="the quantised weights that are served")
    parser.add_argument("--adapters", type=Path, default=Path("examples/smollm2/adapters"))
    parser.add_argument("--experts", nargs="+", help="score these alone and keep the other scores there are")
    parser.add_argument("--own", type=int, default=40, help="prompts for a task's own expert and the base")
    parser.add_argument("--others", type=int, default=20, help="prompts for every other expert")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", type=Path, help="appends every reply to this JSON-lines file")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.adapters.glob("*/adapter_config.json"))
    cells: list[Cell] = []
    with (
        tempfile.TemporaryDirectory() as work_dir,
        running_engine(options.base_gguf, folders, Path(work_dir), options.threads) as engine,
    ):
        for expert in options.experts or (BASE, *engine.id_of):
            for task in task_names():
                n = prompts_for(task, expert, options.own, options.others)
                cells.append(score_cell(engine, task, expert, n, options.log))
                print(f"{expert:13} {task:15} {cells[-1].right}/{n}", flush=True)
    path = options.adapters / "scores.json"
    scores = {"seed": SEED, "cells": [asdict(cell) for cell in merge_cells(read_cells(path), cells)]}
    path.write_text(json.dumps(scores, indent=1) + "\n")
    render_report(options.adapters)


if __name__ == "__main__":
    main()
