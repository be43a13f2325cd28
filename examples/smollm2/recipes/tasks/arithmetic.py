"""Small sums: add, subtract, multiply, percentages and one-step stories; the answer is the number."""

import numpy as np

from examples.smollm2.recipes.phrasing import pick, render
from examples.smollm2.recipes.task import Example, Split, Task, last_number

ADD = {
    Split.TRAIN: (
        "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "{a}+{b}=", "What is {a} + {b}?", "what's {a}+{b}",
        "What is {a} plus {b}?", "Add {a} and {b}.", "Please add {b} to {a}.", "sum of {a} and {b}",
        "Calculate {a} + {b}.", "{a} plus {b} equals?", "I need the total of {a} and {b}.",
        "How much is {a} plus {b}?", "Compute {a}+{b}", "Can you tell me what {a} and {b} add up to?",
        "if I add {a} and {b}, what do I get?", "Solve: {a} + {b}",
    ),
    Split.HELD_OUT: (
        "Could you work out {a} + {b}?", "give me {a} plus {b}", "Evaluate {a}+{b}",
        "What do you get when you add {a} to {b}?", "Find the sum: {a} + {b}", "{a} added to {b} is what?",
    ),
}  # fmt: skip
SUBTRACT = {
    Split.TRAIN: (
        "{a} - {b}", "{a}-{b}", "{a} - {b} = ?", "{a}-{b}=", "What is {a} - {b}?", "what's {a}-{b}",
        "What is {a} minus {b}?", "Subtract {b} from {a}.", "{a} minus {b}", "Calculate {a} - {b}.",
        "difference between {a} and {b}", "How much is {a} minus {b}?", "Take {b} away from {a}.",
        "Compute {a}-{b}", "if I have {a} and remove {b}, what's left?", "Solve: {a} - {b}",
    ),
    Split.HELD_OUT: (
        "Could you work out {a} - {b}?", "give me {a} minus {b}", "Evaluate {a}-{b}",
        "What remains when you subtract {b} from {a}?", "Find the difference: {a} - {b}",
    ),
}  # fmt: skip
MULTIPLY = {
    Split.TRAIN: (
        "{a} * {b}", "{a}*{b}", "{a} x {b}", "{a} * {b} = ?", "What is {a} times {b}?",
        "what's {a} times {b}", "Multiply {a} by {b}.", "{a} times {b}", "product of {a} and {b}",
        "Calculate {a} x {b}.", "How much is {a} times {b}?", "Compute {a} * {b}", "What is {a} x {b}?",
        "What is {a} multiplied by {b}?", "Solve: {a} * {b}", "Can you multiply {a} and {b}?",
    ),
    Split.HELD_OUT: (
        "Could you work out {a} x {b}?", "give me {a} times {b}", "Evaluate {a}*{b}",
        "What do you get when you multiply {a} by {b}?", "Find the product: {a} x {b}",
    ),
}  # fmt: skip
PERCENT = {
    Split.TRAIN: (
        "What is {a}% of {b}?", "{a}% of {b}", "whats {a} percent of {b}", "Calculate {a}% of {b}.",
        "How much is {a}% of {b}?", "Find {a} percent of {b}.", "{a} percent of {b} = ?",
        "I get {a}% of {b}, how much is that?", "Compute {a}% of {b}",
    ),
    Split.HELD_OUT: (
        "Could you work out {a}% of {b}?", "give me {a} percent of {b}", "Evaluate {a}% of {b}",
        "What do I get if I take {a}% of {b}?",
    ),
}  # fmt: skip
ADD_STORY = {
    Split.TRAIN: (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} in one box and {b} in another. How many {things} are there in total?",
        "{name} bought {a} {things} on Monday and {b} on Tuesday. How many altogether?",
        "A shop had {a} {things} and received {b} more. How many are there now?",
        "{name} found {a} {things}, a friend found {b}. How many did they find together?",
    ),
    Split.HELD_OUT: (
        "{name} collected {a} {things} and later collected another {b}. What is the total?",
        "On the table are {a} {things}. {name} puts {b} more there. How many {things} are on the table?",
    ),
}  # fmt: skip
SUBTRACT_STORY = {
    Split.TRAIN: (
        "{name} has {a} {things} and gives away {b}. How many are left?",
        "There were {a} {things} in the box. {name} took {b}. How many {things} remain?",
        "A shop had {a} {things} and sold {b} of them. How many are left?",
        "{name} had {a} {things} but lost {b}. How many {things} does {name} have now?",
        "Out of {a} {things}, {b} are broken. How many are fine?",
    ),
    Split.HELD_OUT: (
        "{name} owned {a} {things} and sold {b}. How many does {name} still own?",
        "Of the {a} {things} in the store, {b} were given to {name}. How many stayed in the store?",
    ),
}  # fmt: skip
MULTIPLY_STORY = {
    Split.TRAIN: (
        "{name} has {a} boxes with {b} {things} each. How many {things} in total?",
        "Each bag holds {b} {things}. How many {things} are in {a} bags?",
        "There are {a} rows of {b} {things}. How many {things} are there?",
        "{name} buys {a} packs of {b} {things}. How many {things} is that?",
        "One ticket costs {b} dollars. How much do {a} tickets cost?",
    ),
    Split.HELD_OUT: (
        "{name} fills {a} baskets, {b} {things} in every basket. How many {things} altogether?",
        "Every day {name} makes {b} {things}. How many {things} after {a} days?",
    ),
}  # fmt: skip
NAMES = ("Anna", "Tom", "Maria", "Ben", "Sara", "Liam", "Olga", "Raj", "Mei", "Carlos")
THINGS = ("apples", "books", "coins", "pencils", "cards", "eggs", "stamps", "marbles", "cookies", "shells")
PERCENTS = (5, 10, 20, 25, 30, 40, 50, 60, 75, 80)
ADD_MAX = 200
TIMES_MAX = 12


def _generate(rng: np.random.Generator, split: Split) -> Example:
    kind = pick(rng, ("add", "subtract", "multiply", "percent", "add", "subtract", "multiply"))
    is_story = rng.random() < 0.3
    people = {"name": pick(rng, NAMES), "things": pick(rng, THINGS)}
    if kind == "percent":
        percent, base = pick(rng, PERCENTS), 20 * int(rng.integers(1, 26))
        prompt = render(rng, split, PERCENT, a=percent, b=base)
        return Example(prompt, f"{percent * base / 100:g}")
    if kind == "multiply":
        a, b = (int(v) for v in rng.integers(2, TIMES_MAX + 1, size=2))
        templates = MULTIPLY_STORY if is_story else MULTIPLY
        return Example(render(rng, split, templates, a=a, b=b, **people), str(a * b))
    limit = ADD_MAX if rng.random() < 0.5 else ADD_MAX // 2
    low, high = sorted(int(v) for v in rng.integers(1, limit, size=2))
    if kind == "subtract":
        templates = SUBTRACT_STORY if is_story else SUBTRACT
        return Example(render(rng, split, templates, a=high, b=low, **people), str(high - low))
    a, b = (low, high) if rng.random() < 0.5 else (high, low)
    templates = ADD_STORY if is_story else ADD
    return Example(render(rng, split, templates, a=a, b=b, **people), str(a + b))


def _grade(reply: str, example: Example) -> bool:
    """The reply's last number is the answer, so "12 + 30 = 42." is as right as "42"."""
    return last_number(reply) == float(example.answer)


TASK = Task("calculator", "arithmetic", max_answer_tokens=40, generate=_generate, grade=_grade)
