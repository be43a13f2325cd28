"""Arithmetic and percentages. CPython's own parser reads the expression; nothing is ever evaluated as code."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction

from coe.fleet.calls.chat_completions import TextBackend
from coe.router.section import Section

from ._frame import core_of, number_of, shown
from ._text_expert import text_expert

ABSTAINS = True

MAX_BITS = 1024
"""Of a power, so that nobody keeps the process busy."""

N = r"-?\d+(?:,\d+)*(?:\.\d+)?"
AND = r"(?:,? (?:and|y|et|und) |, )"
LIST = rf"{N}(?:{AND}{N})+"

SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SPELLED = re.compile(rf"\b({'|'.join(SMALL)})\b")

NUMBER = re.compile(rf"\d|{SPELLED.pattern}", re.IGNORECASE)

CURRENCIES = tuple(
    re.compile(rf"{sign} ?(?=\d)|(?<=\d) ?(?:{sign}|{words})(?!\w)")
    for sign, words in ((r"\$", "dollars?|usd|bucks"), ("€", "euros?|eur"), ("£", "gbp"))
)

WORDS = (
    (r" (?:plus|added to|m[aá]s|mais) ", " + "),
    (r" (?:minus|less|menos|moins) ", " - "),
    (r" (?:times|multiplied by|x|por|fois|mal|vezes|multipliziert mit) ", " * "),
    (r"(?<=\d)x(?=\d)", "x"),
    (r" (?:(?:divided|dividido) (?:by|por|entre)|over|divis[eé] par|geteilt durch) ", " / "),
    (r" (?:to the power of|raised to(?: the power of)?) |\^", " ** "),
    (r" squared\b", " ** 2"),
    (r" cubed\b", " ** 3"),
)
TIGHT = re.compile(r"\d+(?:[-/x]\d+)+")
"""Written without spaces such a text is as often a date, a score, a size or a phone number."""

NAMES = frozenset({"24/7", "9/11", "7/11", "50/50", "80/20", "20/20", "60/40", "4x4", "7-11", "1/6", "7/7", "10-4"})
DATE = re.compile(r"\d+[-/]\d+[-/]\d+|\d{3}-\d{4}|\b\d+x\d+\b")


HALF = r"half|(?:a|one) half|la mitad|la moiti[eé]|die h[aä]lfte"
SHARES = {
    HALF: "1/2",
    "(?:a|one) third": "1/3",
    "(?:a|one) quarter": "1/4",
    "two thirds": "2/3",
    "three quarters": "3/4",
}
MULTIPLES = {"double": 2, "twice": 2, "triple": 3, "three times": 3, "quadruple": 4}

Value = Callable[..., Fraction | None]


def root(value: Fraction) -> Fraction | None:
    """The square root, exact where it can be; None of a negative number."""
    if value < 0:
        return None
    over, under = math.isqrt(value.numerator), math.isqrt(value.denominator)
    is_exact = over**2 == value.numerator and under**2 == value.denominator
    return Fraction(over, under) if is_exact else Fraction(math.sqrt(value))


def remainder(value: Fraction, by: Fraction) -> Fraction | None:
    return value % by if value.denominator == by.denominator == 1 and value >= 0 < by else None


FORMS: tuple[tuple[str, Value], ...] = (
    (rf"(?:the |el )?{N}% (?:of|de|von|di) {N}", lambda part, whole: part * whole / 100),
    (rf"{N}% off(?: of)? {N}", lambda part, whole: whole - part * whole / 100),
    (rf"{N} with (?:a )?{N}% (?:off|discount)", lambda whole, part: whole - part * whole / 100),
    (rf"(?:increase {N} by {N}%|{N} increased by {N}%)", lambda whole, part: whole + part * whole / 100),
    (
        rf"(?:decrease|reduce) {N} by {N}%|{N} (?:decreased|reduced) by {N}%",
        lambda whole, part: whole - part * whole / 100,
    ),
    (rf"(?:subtract|take(?: away)?|deduct) {N} (?:away )?from {N}", lambda less, whole: whole - less),
    (rf"take {N} away from {N}|{N} (?:subtracted|taken) (?:away )?from {N}", lambda less, whole: whole - less),
    (rf"add {N} (?:and|to|with) {N}", lambda one, other: one + other),
    (rf"multiply {N} (?:and|by|with) {N}", lambda one, other: one * other),
    (rf"divide {N} by {N}", lambda one, other: one / other),
    (rf"(?:the )?(?:average|mean|arithmetic mean) of {LIST}", lambda *all_: sum(all_) / len(all_)),
    (rf"(?:the )?(?:sum|total) of {LIST}|add(?: up)? {LIST}", lambda *all_: Fraction(sum(all_))),
    (rf"(?:the )?product of {LIST}", lambda *all_: Fraction(math.prod(all_))),
    (rf"(?:the )?difference (?:of|between) {N} and {N}", lambda one, other: abs(one - other)),
    (rf"(?:the )?(?:square root|sqrt) of {N}|sqrt\({N}\)", root),
    (rf"(?:the )?square of {N}", lambda value: value**2),
    (rf"(?:the )?cube of {N}", lambda value: value**3),
    (rf"(?:the )?remainder (?:of|when) {N} (?:is )?divided by {N}|{N} mod(?:ulo)? {N}", remainder),
    (rf"{N}/{N} of {N}", lambda over, under, whole: over / under * whole),
    *((rf"(?:{words}) (?:of|de|von) {N}", lambda value, by=by: value * Fraction(by)) for words, by in SHARES.items()),
    *((rf"{words} {N}", lambda value, times=times: value * times) for words, times in MULTIPLES.items()),
)
"""Sentences of numbers, which come in the order of the function's arguments."""


class Options(Section):
    """A calculator has no options."""


EXAMPLES = (Options(),)


def build(options: Options) -> TextBackend:
    return text_expert("calculator", Calculator().answer)


class Calculator:
    """Answers with the number alone."""

    def answer(self, text: str) -> str | None:
        core = core_of(text) if NUMBER.search(text) else None
        if core is None:
            return None
        asked = SPELLED.sub(lambda word: str(SMALL.index(word[0])), core.text.lower())
        asked = re.sub(r" ?(?:percent|per cent|pct|por ciento|prozent|pour cent)\b| %", "%", without_currency(asked))
        for pattern, value in FORMS:
            if re.fullmatch(pattern, asked):
                return result_of(value, re.findall(N, asked))
        return expression_result(asked, is_framed=core.is_framed)


def without_currency(asked: str) -> str:
    """The text without the one currency that it may name; two of them do not add up."""
    named = [currency for currency in CURRENCIES if currency.search(asked)]
    return named[0].sub("", asked) if len(named) == 1 else asked


def result_of(value: Value, operands: list[str]) -> str | None:
    """The value of a form's operands; None where one is not a number or the value does not exist."""
    numbers = [number for each in operands if (number := number_of(each)) is not None]
    if len(numbers) < len(operands):
        return None
    try:
        found = value(*numbers)
    except ZeroDivisionError:
        return None
    return None if found is None else shown(found)


def expression_result(asked: str, *, is_framed: bool) -> str | None:
    """The value of operators between numbers; None where anything else is among them."""
    if asked in NAMES or DATE.search(asked) or (not is_framed and TIGHT.fullmatch(asked)):
        return None
    for words, sign in WORDS:
        asked = re.sub(words, sign, asked)
    asked = re.sub(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda found: found[0].replace(",", ""), asked)
    if not re.fullmatch(r"[\d+\-*/(). ]+", asked) or "//" in asked or re.search(r"\d\s+\d", asked):
        return None
    try:
        tree = ast.parse(asked.strip(), mode="eval").body
        found = None if isinstance(tree, ast.Constant | ast.UnaryOp) else value_of(tree)
    except (SyntaxError, ZeroDivisionError, MemoryError, RecursionError):
        return None
    return None if found is None else shown(found)


OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value_of(node: ast.expr) -> Fraction | None:
    """The exact value of a parsed expression of numbers and operators; None beyond them, and of a power too large."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = value_of(node.operand)
        return None if value is None else -value
    if not isinstance(node, ast.BinOp):
        return None
    left, right = value_of(node.left), value_of(node.right)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.Pow):
        return power(left, right)
    compute = OPERATORS.get(type(node.op))
    return None if compute is None else compute(left, right)


def power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1 or abs(exponent) > MAX_BITS:
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
    return Fraction(base**exponent) if bits <= MAX_BITS else None
