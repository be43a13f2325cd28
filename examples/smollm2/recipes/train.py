"""Trains one expert: `python -m examples.smollm2.recipes.train TASK --base DIR --out DIR`."""

import argparse
import importlib.metadata
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from coe.training.lora.adapter_fit import Recipe, fit, load_adapted_base, save_adapter
from examples.smollm2.recipes.task import Split, draw_examples, load_task, task_names

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGES = ("torch", "transformers", "peft", "numpy")


def train_expert(task_name: str, base: Path, out: Path, recipe: Recipe, start: Path | None) -> None:
    """Trains and saves the expert of `task_name` into `out` (adapter and recipe.json).

    With `start`, the folder of an adapter of the same rank and alpha, training continues from its weights, and
    its recipe is kept in the new one.
    """
    import torch
    from transformers import AutoTokenizer

    # A task that is learned well has gradients so small that denormal numbers made a step six times slower.
    # Threads inherit the mode from the one that starts them: set it before the first operation.
    torch.set_flush_denormal(True)
    task = load_task(task_name)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = draw_examples(task, Split.TRAIN, recipe.steps * recipe.batch_size, recipe.seed)
    model = load_adapted_base(base, recipe, start)
    watch = partial(print, "step and loss:", flush=True)
    final_loss = fit(model, tokenizer, examples, recipe, watch)
    save_adapter(model, out, BASE_MODEL)
    record = {
        "expert": task.expert,
        "task": task_name,
        "base_model": BASE_MODEL,
        **asdict(recipe),
        "training_examples": len(examples),
        "final_loss": round(final_loss, 4),
        "wall_time_s": round(time.perf_counter() - started, 1),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "start": None if start is None else json.loads((start / "recipe.json").read_text()),
    }
    (out / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Command line; every field of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m examples.smollm2.recipes.train", description=__doc__)
    parser.add_argument("task", choices=task_names())
    parser.add_argument("--base", type=Path, required=True, help="folder of dequantize.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of an adapter to continue from; give another --seed")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = vars(parser.parse_args())
    task, base, out, start = (args.pop(name) for name in ("task", "base", "out", "start"))
    train_expert(task, base, out, Recipe(**args), start)


if __name__ == "__main__":
    main()
