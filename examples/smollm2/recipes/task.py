"""Tasks and how they are found: the file name under `tasks/` is the task's name."""

import importlib
import pkgutil
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from examples.smollm2.recipes import tasks

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Split(StrEnum):
    """Templates and sentences that an example is made of; the two share none."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Example:
    """One user message and the one answer that is right; `labels` are the allowed answers, if few."""

    prompt: str
    answer: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A narrow skill: `generate` draws one example, `grade(reply, example)` says if a reply is right.

    `max_answer_tokens` bounds a reply in the evaluation; it leaves room for a chatty sentence.
    """

    expert: str
    category: str
    max_answer_tokens: int
    generate: Callable[[np.random.Generator, Split], Example]
    grade: Callable[[str, Example], bool]


def task_names() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(tasks.__path__))


def load_task(name: str) -> Task:
    """The `TASK` of `tasks/<name>.py`.

    Raises:
        ValueError: there is no such file.
    """
    if name not in task_names():
        raise ValueError(f"unknown task {name!r}; known: {', '.join(task_names())}")
    task = importlib.import_module(f"{tasks.__name__}.{name}").TASK
    if not isinstance(task, Task):
        raise TypeError(f"tasks/{name}.py: TASK is a {type(task).__name__}, not a Task")
    return task


def draw_examples(task: Task, split: Split, n: int, seed: int) -> list[Example]:
    """`n` examples with distinct prompts; the same arguments give the same list.

    Raises:
        ValueError: the task cannot make `n` distinct prompts.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{task.category}/{split}".encode())])
    by_prompt: dict[str, Example] = {}
    for _ in range(20 * n):
        example = task.generate(rng, split)
        by_prompt.setdefault(example.prompt, example)
        if len(by_prompt) == n:
            return list(by_prompt.values())
    raise ValueError(f"{task.category}: only {len(by_prompt)} distinct prompts, {n} wanted")


def last_number(text: str) -> float | None:
    """The last number in `text`, thousands separators dropped; None without one."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
