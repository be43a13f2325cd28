"""The converter: what has one answer, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.smollm2.experts.converter import made, numeral

CONVERTER = made()
ANSWERS = {
    "convert 10 inches to cm": "25.4 cm",
    "5 km in meters?": "5000 meters",
    "How many minutes are there in 2 hours?": "120 minutes",
    "convertir 0 grados Celsius a Fahrenheit": "32 fahrenheit",
    "98.6 F in C": "37 c",
    "¿Cuántos kilómetros son 26 millas?": "41.842944 kilómetros",
    "how many months in a year": "12 months",
    "Write March 5, 2021 as an ISO date (YYYY-MM-DD).": "2021-03-05",
    "What day of the week was July 20, 1969?": "Sunday",
    "4:30 pm in 24h time": "16:30",
    "12 am in 24 hour time": "00:00",
    "16:30 in 12 hour format": "4:30 PM",
    "roman numeral for 14": "XIV",
    "What number is XXI?": "21",
    "binary of 5": "101",
    "1010 binary to decimal, number only": "10",
    "0xff in decimal": "255",
    "#FF0000 as rgb, three numbers with commas": "255, 0, 0",
}
ABSTAINS = (
    "how many days in 2 months",  # which months?
    "how many days in a year",
    "250 GB to MB",  # 1000 or 1024
    "how many ounces in a cup",
    "5 m in s",
    "convert 2 kg to dollars",
    "1010 in decimal",  # of which base?
    "3/4/2021 to iso",  # March or April
    "31 february 2021 to iso date",
    "what number is IIX",
    "what number is mix",
    "25:30 in 12 hour format",
    "How many feet does a spider have?",
    "1,5 kg en gramos",
)


@pytest.mark.parametrize(("text", "answer"), ANSWERS.items())
def test_answers(text: str, answer: str) -> None:
    assert CONVERTER.answer(text) == answer


@pytest.mark.parametrize("text", ABSTAINS)
def test_abstains(text: str) -> None:
    assert CONVERTER.answer(text) is None


@given(st.integers(1, 3999))
def test_a_roman_numeral_comes_back(number: int) -> None:
    written = CONVERTER.answer(f"{number} in roman numerals")
    assert written == numeral(number)
    assert CONVERTER.answer(f"the roman numeral {written}") in (str(number), None)  # one letter is a word as well


@given(number=st.integers(0, 2**40), base=st.sampled_from(("binary", "octal", "hex")))
def test_a_base_comes_back(number: int, base: str) -> None:
    written = CONVERTER.answer(f"{number} in {base}")
    assert CONVERTER.answer(f"{base} {written} to decimal") == str(number)
