"""The experts' tasks: deterministic, held out where it says so, and graded as a person would."""

import itertools
import json
import shlex
import sqlite3

import numpy as np
import pytest

from examples.smollm2.recipes.phrasing import misspell
from examples.smollm2.recipes.task import Example, Split, draw_examples, last_number, load_task, task_names
from examples.smollm2.recipes.tasks.conversion import roman
from examples.smollm2.recipes.tasks.sql import HELD_OUT_TABLES, TABLES

every_task = pytest.mark.parametrize("name", task_names())
N = 300


def grade(task: str, reply: str, answer: str, labels: tuple[str, ...] = ()) -> bool:
    return load_task(task).grade(reply, Example("", answer, labels))


def test_each_expert_has_one_task() -> None:
    tasks = [load_task(name) for name in task_names()]
    assert len({task.expert for task in tasks}) == len(tasks) == 6
    assert [task.category for task in tasks] == task_names()


@every_task
def test_same_seed_same_examples(name: str) -> None:
    task = load_task(name)
    assert draw_examples(task, Split.TRAIN, 50, 3) == draw_examples(task, Split.TRAIN, 50, 3)
    assert draw_examples(task, Split.TRAIN, 50, 3) != draw_examples(task, Split.TRAIN, 50, 4)


@every_task
def test_no_held_out_prompt_is_trained_on(name: str) -> None:
    task = load_task(name)
    trained = {example.prompt for example in draw_examples(task, Split.TRAIN, 2000, 0)}
    held_out = {example.prompt for example in draw_examples(task, Split.HELD_OUT, N, 1)}
    assert len(held_out) == N
    assert not trained & held_out


@every_task
@pytest.mark.parametrize("split", Split)
def test_right_answers_pass_and_silence_fails(name: str, split: Split) -> None:
    task = load_task(name)
    examples = draw_examples(task, split, N, 5)
    for example in examples:
        assert task.grade(example.answer, example), example
        assert task.grade(f" {example.answer}\n", example), example
        assert not task.grade("", example), example


@every_task
def test_another_examples_answer_is_wrong(name: str) -> None:
    task = load_task(name)
    examples = [example for example in draw_examples(task, Split.TRAIN, N, 6) if not example.labels]
    passed = sum(
        task.grade(other.answer, example)
        for example, other in itertools.pairwise(examples)
        if other.answer != example.answer
    )
    assert passed <= 2  # 5 km and 5 m may pass for each other: quantities are graded by their number


@pytest.mark.parametrize(
    ("task", "reply", "answer", "is_right"),
    [
        ("arithmetic", "12 + 30 = 42.", "42", True),
        ("arithmetic", "The answer is 1,200", "1200", True),
        ("arithmetic", "42 is 12 + 30", "42", False),
        ("arithmetic", "I do not know", "42", False),
        ("conversion", "3 km are 3,000 meters.", "3000 m", True),
        ("conversion", "3 km", "3000 m", False),
        ("conversion", "-5 degrees", "-5 °C", True),
        ("conversion", "March 5, 2024 is 2024-03-05.", "2024-03-05", True),
        ("conversion", "2024-05-03", "2024-03-05", False),
        ("conversion", "It is 2:30 p.m.", "2:30 PM", True),
        ("conversion", "14:30", "2:30 PM", False),
        ("conversion", "0b1010", "1010", True),
        ("conversion", "xiv", "XIV", True),
        ("extraction", 'Sure: {"name": "anna", "city": null} ok', '{"name": "Anna", "city": null}', True),
        ("extraction", '{"name": "Anna"}', '{"name": "Anna", "city": null}', False),
        ("extraction", '{"name": "Anna", "age": "3"}', '{"name": "Anna"}', False),
        ("extraction", "{name: Anna}", '{"name": "Anna"}', False),
        ("shell", "```bash\nls -la  src/\n```", "ls -la src", True),
        ("shell", 'grep -r "x" docs', "grep -r 'x' docs", True),
        ("shell", "rm -r src", "ls -la src", False),
        ("sql", "```sql\nselect count( * ) from users\n```", "SELECT COUNT(*) FROM users;", True),
        ("sql", 'SELECT * FROM t WHERE a="b"', "SELECT * FROM t WHERE a = 'b';", True),
        ("sql", "SELECT * FROM t WHERE a = 'c';", "SELECT * FROM t WHERE a = 'b';", False),
        ("sql", "There is no query.", "SELECT * FROM t;", False),
    ],
)
def test_grading(task: str, reply: str, answer: str, is_right: bool) -> None:
    assert grade(task, reply, answer) is is_right


def test_a_label_counts_only_alone() -> None:
    labels = ("spam", "ham")
    assert grade("classification", "This is Spam.", "spam", labels)
    assert not grade("classification", "spam or ham", "spam", labels)
    assert not grade("classification", "shame", "ham", labels)


@pytest.mark.parametrize("split", Split)
def test_extraction_asks_for_the_keys_of_its_answer(split: Split) -> None:
    for example in draw_examples(load_task("extraction"), split, N, 0):
        values = json.loads(example.answer)
        assert all(key in example.prompt for key in values)
        assert all(value is None or value in example.prompt for value in values.values())


@pytest.mark.parametrize("split", Split)
def test_classification_offers_its_answer(split: Split) -> None:
    for example in draw_examples(load_task("classification"), split, N, 0):
        assert example.answer in example.labels
        assert all(label in example.prompt for label in example.labels)


@pytest.mark.parametrize("split", Split)
def test_sql_answers_run(split: Split) -> None:
    database = sqlite3.connect(":memory:")
    for table, (texts, numbers) in {**TABLES, **HELD_OUT_TABLES}.items():
        database.execute(f"CREATE TABLE {table} (id, {', '.join((*texts, *numbers))})")
    for example in draw_examples(load_task("sql"), split, N, 0):
        database.execute(example.answer)
    database.close()


@pytest.mark.parametrize("split", Split)
def test_shell_answers_are_one_command_line(split: Split) -> None:
    for example in draw_examples(load_task("shell"), split, N, 0):
        assert "\n" not in example.answer
        assert shlex.split(example.answer)


def test_roman_reference_values() -> None:
    assert [roman(n) for n in (1, 4, 9, 14, 40, 63, 99)] == ["I", "IV", "IX", "XIV", "XL", "LXIII", "XCIX"]


def test_last_number() -> None:
    assert last_number("from 3 to -1,234.5 now") == -1234.5
    assert last_number("none") is None


def test_misspelling_spares_fields() -> None:
    rng = np.random.default_rng(0)
    changed = {misspell(rng, "convert {value} to {target}") for _ in range(50)}
    assert len(changed) > 3
    assert all("{value}" in text and "{target}" in text for text in changed)


def test_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown task 'cooking'; known: arithmetic"):
        load_task("cooking")


def test_too_many_examples_are_refused() -> None:
    task = load_task("classification")
    few = type(task)(task.expert, task.category, 1, lambda rng, split: Example("a", "b"), task.grade)
    with pytest.raises(ValueError, match="only 1 distinct prompts, 2 wanted"):
        draw_examples(few, Split.TRAIN, 2, 0)
