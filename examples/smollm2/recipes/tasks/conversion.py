"""Units, dates, clock times, number bases and Roman numerals; the answer is the bare value."""

import datetime
import re
from fractions import Fraction

import numpy as np

from examples.smollm2.recipes.phrasing import pick, render
from examples.smollm2.recipes.task import Example, Split, Task, last_number

# from, to, factor, largest quantity, names of from, names of to
UNITS: tuple[tuple[str, str, Fraction, int, tuple[str, ...], tuple[str, ...]], ...] = (
    ("km", "m", Fraction(1000), 50, ("km", "kilometers"), ("m", "meters")),
    ("m", "cm", Fraction(100), 50, ("m", "meters"), ("cm", "centimeters")),
    ("cm", "mm", Fraction(10), 99, ("cm", "centimeters"), ("mm", "millimeters")),
    ("m", "km", Fraction(1, 1000), 50, ("m", "meters"), ("km", "kilometers")),
    ("cm", "m", Fraction(1, 100), 50, ("cm", "centimeters"), ("m", "meters")),
    ("ft", "in", Fraction(12), 12, ("ft", "feet"), ("in", "inches")),
    ("yd", "ft", Fraction(3), 30, ("yd", "yards"), ("ft", "feet")),
    ("kg", "g", Fraction(1000), 50, ("kg", "kilograms"), ("g", "grams")),
    ("g", "mg", Fraction(1000), 50, ("g", "grams"), ("mg", "milligrams")),
    ("g", "kg", Fraction(1, 1000), 50, ("g", "grams"), ("kg", "kilograms")),
    ("t", "kg", Fraction(1000), 30, ("t", "tonnes"), ("kg", "kilograms")),
    ("lb", "oz", Fraction(16), 10, ("lb", "pounds"), ("oz", "ounces")),
    ("l", "ml", Fraction(1000), 50, ("l", "liters"), ("ml", "milliliters")),
    ("ml", "l", Fraction(1, 1000), 50, ("ml", "milliliters"), ("l", "liters")),
    ("gal", "qt", Fraction(4), 25, ("gal", "gallons"), ("qt", "quarts")),
    ("min", "s", Fraction(60), 15, ("min", "minutes"), ("s", "seconds")),
    ("h", "min", Fraction(60), 15, ("h", "hours"), ("min", "minutes")),
    ("days", "h", Fraction(24), 10, ("d", "days"), ("h", "hours")),
    ("weeks", "days", Fraction(7), 15, ("weeks", "weeks"), ("days", "days")),
)
UNIT_REQUESTS = {
    Split.TRAIN: (
        "Convert {v} {a} to {b}.", "{v} {a} to {b}", "{v} {a} in {b}", "How many {b} are in {v} {a}?",
        "What is {v} {a} in {b}?", "{v} {a} = ? {b}", "how many {b} is {v} {a}", "Please convert {v} {a} into {b}.",
        "I have {v} {a}. How many {b} is that?", "Express {v} {a} in {b}.", "change {v} {a} to {b}",
        "convert {v}{a} to {b}", "{v} {a} -> {b}", "Can you tell me {v} {a} in {b}?",
    ),
    Split.HELD_OUT: (
        "Turn {v} {a} into {b}.", "Give me {v} {a} as {b}", "{v} {a} equals how many {b}?",
        "Could you convert {v} {a} into {b} for me?", "What do {v} {a} come to in {b}?",
    ),
}  # fmt: skip
FORM_REQUESTS = {
    Split.TRAIN: (
        "Convert {v} to {b}.", "{v} to {b}", "{v} in {b}", "What is {v} in {b}?", "Write {v} in {b}.",
        "Please convert {v} into {b}.", "change {v} to {b}", "{v} -> {b}", "{b} of {v}?", "{v} as {b}",
        "Can you write {v} as {b}?", "I need {v} in {b}.", "How do you write {v} in {b}?", "to {b}: {v}",
    ),
    Split.HELD_OUT: (
        "Turn {v} into {b}.", "Give me {v} as {b}", "Rewrite {v} in {b}.", "What would {v} be in {b}?",
        "Could you convert {v} into {b} for me?",
    ),
}  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
ROMAN = (
    (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
TOKEN = re.compile(r"[\w:.\-]+")


def roman(number: int) -> str:
    """Roman numeral of 1 to 399."""
    out = ""
    for value, letters in ROMAN:
        while number >= value:
            out, number = out + letters, number - value
    return out


def _unit(rng: np.random.Generator, split: Split) -> Example:
    _, unit, factor, largest, a_names, b_names = pick(rng, UNITS)
    step = factor.denominator
    scale = pick(rng, (step, step // 2, step // 10, step // 4)) if step > 1 else 1
    quantity = int(rng.integers(1, largest + 1)) * max(1, scale)
    spelled = int(rng.integers(2))
    value = float(quantity * factor)
    prompt = render(rng, split, UNIT_REQUESTS, v=quantity, a=a_names[spelled], b=b_names[spelled])
    return Example(prompt, f"{value:.10g} {unit}")


def _temperature(rng: np.random.Generator, split: Split) -> Example:
    celsius = 5 * int(rng.integers(-4, 21))
    fahrenheit = celsius * 9 // 5 + 32
    c_name, f_name = pick(rng, (("C", "F"), ("°C", "°F"), ("degrees Celsius", "Fahrenheit"), ("celsius", "fahrenheit")))
    if rng.random() < 0.5:
        return Example(render(rng, split, UNIT_REQUESTS, v=celsius, a=c_name, b=f_name), f"{fahrenheit} °F")
    return Example(render(rng, split, UNIT_REQUESTS, v=fahrenheit, a=f_name, b=c_name), f"{celsius} °C")


def _date(rng: np.random.Generator, split: Split) -> Example:
    month, day, year = int(rng.integers(1, 13)), int(rng.integers(1, 29)), int(rng.integers(1950, 2040))
    name = MONTHS[month - 1]
    suffix = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    written = pick(rng, (
        f"{name} {day}, {year}", f"{day} {name} {year}", f"{name[:3]} {day} {year}", f"{day}.{month}.{year}",
        f"{day}{suffix} of {name} {year}", f"{name} {day}{suffix}, {year}", f"{day} {name[:3]} {year}",
    ))  # fmt: skip
    target = pick(rng, ("ISO format", "ISO 8601", "YYYY-MM-DD", "iso date", "yyyy-mm-dd format"))
    return Example(render(rng, split, FORM_REQUESTS, v=written, b=target), datetime.date(year, month, day).isoformat())


def _clock(rng: np.random.Generator, split: Split) -> Example:
    hour, minute = int(rng.integers(24)), int(rng.integers(60))
    half = "AM" if hour < 12 else "PM"
    twelve, full = f"{(hour - 1) % 12 + 1}:{minute:02} {half}", f"{hour:02}:{minute:02}"
    if rng.random() < 0.5:
        written = pick(rng, (twelve, twelve.lower(), twelve.replace(" ", "")))
        target = pick(rng, ("24-hour time", "24 hour format", "24h", "24-hour format"))
        return Example(render(rng, split, FORM_REQUESTS, v=written, b=target), full)
    target = pick(rng, ("12-hour time", "12 hour format", "12h", "am/pm time"))
    return Example(render(rng, split, FORM_REQUESTS, v=full, b=target), twelve)


def _base(rng: np.random.Generator, split: Split) -> Example:
    number = int(rng.integers(1, 64))
    target = pick(rng, ("binary", "decimal", "hex", "roman", "roman", "arabic"))
    if target == "binary":
        return Example(render(rng, split, FORM_REQUESTS, v=number, b="binary"), f"{number:b}")
    if target == "hex":
        name = pick(rng, ("hex", "hexadecimal"))
        return Example(render(rng, split, FORM_REQUESTS, v=number, b=name), f"{number:X}")
    if target == "decimal":
        written = pick(rng, (f"binary {number:b}", f"{number:b} binary", f"0b{number:b}"))
        return Example(render(rng, split, FORM_REQUESTS, v=written, b="decimal"), str(number))
    if target == "roman":
        name = pick(rng, ("roman numerals", "Roman numerals", "a roman numeral"))
        return Example(render(rng, split, FORM_REQUESTS, v=number, b=name), roman(number))
    name = pick(rng, ("a number", "arabic numerals", "a decimal number", "digits"))
    written = pick(rng, (roman(number), f"roman numeral {roman(number)}"))
    return Example(render(rng, split, FORM_REQUESTS, v=written, b=name), str(number))


def _generate(rng: np.random.Generator, split: Split) -> Example:
    return pick(rng, (_unit, _unit, _unit, _temperature, _date, _date, _clock, _clock, _base, _base))(rng, split)


def _grade(reply: str, example: Example) -> bool:
    """Quantities: the reply's last number. Anything else: the reply's last such word is the answer."""
    quantity = re.fullmatch(r"(-?[\d.]+) \D+", example.answer)
    if quantity and ":" not in example.answer:
        return last_number(reply) == float(quantity[1])
    wanted = example.answer.casefold().replace(" ", "")
    joined = re.sub(r"\s+(?=[ap]m\b)", "", reply.casefold().replace(".m.", "m").replace("a.m", "am"))
    words = [word.strip(".:-") for word in TOKEN.findall(joined)]
    return bool(words) and words[-1].removeprefix("0x").removeprefix("0b") == wanted


TASK = Task("converter", "conversion", max_answer_tokens=40, generate=_generate, grade=_grade)
