"""The calculator: exact where it answers, and silent where a text may mean something else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.smollm2.experts.calculator import Calculator

ANSWERS = {
    "what is 2 + 3?": "5",
    "hey can you take 36 away from 90 for me": "54",
    "how much is 15 percent off 200 dollars? just tell me the final price": "170",
    "What's 1,234 + 1?": "1235",
    "0.1+0.2": "0.3",
    "1/3 + 1": "1.333333",
    "(2+3)*4 =": "20",
    "2^10": "1024",
    "what is ten divided by four": "2.5",
    "average of 4, 8 and 12 - number only": "8",
    "square root of 2": "1.414214",
    "17 mod 5": "2",
    "la mitad de 50": "25",
    "el 20% de 150": "30",
    "was ist 250 geteilt durch 5?": "50",
    "-5 + 3": "-2",
    ".5 + 1": "1.5",
    "what is .5 * 4?": "2",
    "3/4 of 268": "201",
}
ABSTAINS = (
    "what is 9/11?",
    "24/7",
    "2024-01-15",
    "555-1234",
    "call 555-1234",
    "1920x1080",
    "100-40",  # a range as often as a difference
    "200 + 10%",
    "100 dollars plus 20 euros",
    "cuánto es 1,5 + 2",  # a decimal comma, or thousands
    "what is 2+2? explain",
    "2 + 2 = 5",
    "3 + 5!",  # a factorial, or an exclamation
    "100.000 + 1",  # a hundred, or a hundred thousand
    "6 / 2(1+2)",
    "10% of 50%",
    "7",
    "-7",
    "5 / 0",
    "2**100000",
    "007 - 3",
    "__import__('os').system('ls')",
    "what is 2 + 3?\nand 4 + 5?",
    "",
)


@pytest.mark.parametrize(("text", "answer"), ANSWERS.items())
def test_answers(text: str, answer: str) -> None:
    assert Calculator().answer(text) == answer


@pytest.mark.parametrize("text", ABSTAINS)
def test_abstains(text: str) -> None:
    assert Calculator().answer(text) is None


numbers = st.integers(0, 10**6) | st.decimals(0, 1000, places=2).map(lambda value: f"{value:f}")


@given(first=numbers, sign=st.sampled_from("+-*/"), second=numbers)
def test_an_expression_has_its_exact_value_or_seven_digits_of_it(first: object, sign: str, second: object) -> None:
    one, other = Fraction(str(first)), Fraction(str(second))
    answer = Calculator().answer(f"what is {first} {sign} {second}?")
    if sign == "/" and other == 0:
        assert answer is None
        return
    value = {"+": one + other, "-": one - other, "*": one * other}.get(sign, one / (other or 1))
    assert abs(Fraction(answer) - value) <= abs(value) / 10**6
    if value.denominator == 1:
        assert answer == str(value.numerator)
