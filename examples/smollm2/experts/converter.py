"""Units, dates, clock times, number bases, Roman numerals and colours.

Only conversions with one answer: no months to days, no gigabytes to megabytes, no date like 3/4/2021.
"""

from __future__ import annotations

import re
from datetime import datetime
from fractions import Fraction
from typing import Any

from coe.fleet.calls.chat_completions import TextBackend
from coe.router.section import Section

from ._frame import core_of, number_of, shown
from ._text_expert import text_expert

IMPORTS = ("pint", "dateutil")
ABSTAINS = True

UNITS = {
    "millimeter": "mm millimeters millimeter millimetres millimetre",
    "centimeter": "cm centimeters centimeter centimetres centimetre centímetros centimètres zentimeter",
    "meter": "m meters meter metres metre metros mètres",
    "kilometer": "km kilometers kilometer kilometres kilometre kms kilómetros kilometros kilomètres",
    "inch": "inches inch pulgadas zoll",
    "foot": "ft feet foot pies",
    "yard": "yd yards yard",
    "mile": "mi miles mile millas",
    "nautical_mile": "nautical_miles nautical_mile",
    "milligram": "mg milligrams milligram",
    "gram": "g grams gram gramos grammes gramm",
    "kilogram": "kg kgs kilograms kilogram kilos kilo kilogramos kilogrammes kilogramm",
    "metric_ton": "tonnes tonne metric_tons metric_ton",
    "stone": "stone stones",
    "ounce": "oz ounces ounce",
    "pound": "lb lbs pounds pound libras",
    "milliliter": "ml milliliters milliliter millilitres millilitre mililitros",
    "liter": "l liters liter litres litre litros",
    "gallon": "gal gallons gallon us_gallons",
    "quart": "quarts quart",
    "pint": "pints pint",
    "cup": "cups cup",
    "fluid_ounce": "fl_oz fluid_ounces fluid_ounce",
    "tablespoon": "tbsp tablespoons tablespoon",
    "teaspoon": "tsp teaspoons teaspoon",
    "degC": "c °c celsius degrees_celsius degree_celsius degrees_c grados_celsius degrés_celsius grad_celsius",
    "degF": "f °f fahrenheit degrees_fahrenheit degree_fahrenheit degrees_f grados_fahrenheit grad_fahrenheit",
    "kelvin": "k kelvin kelvins degrees_kelvin",
    "second": "s sec secs seconds second segundos secondes sekunden",
    "minute": "min mins minutes minute minutos minuten",
    "hour": "h hr hrs hours hour horas heures stunden",
    "day": "days day días dias jours tage",
    "week": "weeks week semanas semaines wochen",
    "kilometer/hour": "km/h kph kmh kilometers_per_hour kilometres_per_hour",
    "mile/hour": "mph miles_per_hour",
    "meter/second": "m/s meters_per_second metres_per_second",
    "knot": "knots knot",
    "meter**2": "square_meters square_meter square_metres m2 m²",
    "foot**2": "square_feet square_foot sq_ft",
    "acre": "acres acre",
    "hectare": "hectares hectare ha",
    "kilojoule": "kj kilojoules kilojoule",
    "kilocalorie": "kcal kilocalories kilocalorie",
    "bar": "bar bars",
    "psi": "psi",
    "month": "months month meses mois monate",
    "year": "years year años ans jahre",
    "century": "centuries century",
    "bit": "bits bit",
    "byte": "bytes byte",
}
UNIT_OF = {alias.replace("_", " "): unit for unit, names in UNITS.items() for alias in names.split()}
CALENDAR = frozenset({"month", "year", "century"})
"""Their lengths in days differ, so that they convert among themselves alone."""

U = "(" + "|".join(re.escape(alias) for alias in sorted(UNIT_OF, key=len, reverse=True)) + ")"
Q = r"(-?\d[\d,]*(?:\.\d+)?|-?\.\d+|an?|one|half an?)"
TO = r"(?:to|into|in|as|->|=|en|a|à|nach)"
UNIT_FORMS = (
    re.compile(rf"(?P<q>{Q[1:-1]}) ?(?P<have>{U[1:-1]}) {TO} (?P<want>{U[1:-1]})"),
    re.compile(
        rf"(?:how many|cu[aá]nt[oa]s|wie ?viele?|combien de|quantos) (?P<want>{U[1:-1]}) "
        rf"(?:(?:are|is|hay) )?(?:there )?(?:in|is|are|make|makes|equals?|per|son|en|sind|font|são) "
        rf"(?P<q>{Q[1:-1]}) ?(?P<have>{U[1:-1]})"
    ),
    re.compile(rf"(?P<q>{Q[1:-1]}) ?(?P<have>{U[1:-1]}) (?:is|are|equals?|=) how many (?P<want>{U[1:-1]})"),
)
QUANTITIES = {
    "a": Fraction(1),
    "an": Fraction(1),
    "one": Fraction(1),
    "half a": Fraction(1, 2),
    "half an": Fraction(1, 2),
}

MONTH = r"(?:jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|may|june|july|august|" + (
    r"september|october|november|december)"
)
DAY = r"\d{1,2}(?:st|nd|rd|th)?"
DATE = rf"(?:{MONTH} {DAY},? \d{{4}}|{DAY}(?: of)? {MONTH},? \d{{4}}|\d{{4}}-\d{{2}}-\d{{2}})"
AS = r"(?:(?:to|into|in|as|->|=)(?: (?:an?|the))? )"
ISO = r"(?:iso(?: 8601)?(?: date| format| date format)?(?: \(?yyyy-mm-dd\)?)?|yyyy-mm-dd(?: format)?)"
DATE_FORMATS = {
    ISO: "%Y-%m-%d",
    r"dd/mm/yyyy(?: format)?": "%d/%m/%Y",
    r"mm/dd/yyyy(?: format)?": "%m/%d/%Y",
    r"dd\.mm\.yyyy(?: format)?": "%d.%m.%Y",
}
WEEKDAY = re.compile(rf"(?:what |which )?(?:day(?: of the week)?|weekday)(?: (?:is|was|will|on|be|of|for))* ({DATE})")
CLOCK = re.compile(
    rf"(\d{{1,2}}(?::\d{{2}})? ?[ap]\.?m\.?) {AS}(?:24[- ]?h(?:our)?s?|military)(?: (?:time|clock|format|notation))*"
)
CLOCK_24 = re.compile(rf"(\d{{1,2}}:\d{{2}}) {AS}(?:12[- ]?h(?:our)?s?|am/pm)(?: (?:time|clock|format|notation))*")

BASES = {
    "binary": 2,
    "octal": 8,
    "decimal": 10,
    "hex": 16,
    "hexadecimal": 16,
    "base 2": 2,
    "base 10": 10,
    "base 16": 16,
}
B = r"(binary|octal|decimal|hexadecimal|hex|base 2|base 10|base 16)"
D = r"(?:the number )?((?:0x|0b|0o)?[0-9a-f]+)"
BASE_FORMS = (
    (re.compile(rf"{D} (?:in |from )?{B} {AS}{B}"), (1, 2, 3)),
    (re.compile(rf"{B}(?: number)? {D} {AS}{B}"), (2, 1, 3)),
    (re.compile(rf"{D} {AS}{B}"), (1, None, 2)),
    (re.compile(rf"(?:the )?{B} (?:of|for|representation of|form of) {D}"), (2, None, 1)),
)
PREFIXES = {"0x": 16, "0b": 2, "0o": 8}
SIGNS = {2: "b", 8: "o", 10: "d", 16: "X"}

ROMAN: tuple[tuple[int, str], ...] = (
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
)
ROMAN += ((9, "IX"), (5, "V"), (4, "IV"), (1, "I"))
TO_ROMAN = re.compile(
    rf"(?:the )?roman numerals? (?:for|of) (\d{{1,4}}|\d,\d{{3}})|(\d{{1,4}}|\d,\d{{3}}) {AS}roman(?: numerals?)?",
    re.IGNORECASE,
)
FROM_ROMAN = re.compile(
    rf"(?:(?i:what) )?(?:number|value) (?:is|does|of)?(?: the)?(?: roman numeral)? ?([IVXLCDM]{{2,}})(?: represent)?"
    rf"|(?:the )?(?:roman numeral )?([IVXLCDM]{{2,}}) {AS}(?:arabic(?: numerals?)?|decimal|numbers?|numerals|digits)"
    rf"|(?:the )?roman numeral ([IVXLCDM]{{2,}})"
)
TO_RGB = re.compile(rf"(?:the colou?r )?#([0-9a-f]{{6}}) {AS}rgb(?: values?)?")


class Options(Section):
    """A converter has no options."""


EXAMPLES = (Options(),)


def build(options: Options) -> TextBackend:
    return text_expert("converter", made().answer)


def made() -> Converter:
    import pint

    return Converter(pint.UnitRegistry(non_int_type=Fraction))


class Converter:
    """Answers with the converted value, and the unit as it was asked for."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def answer(self, text: str) -> str | None:
        core = core_of(text)
        if core is None:
            return None
        asked = core.text.lower()
        for found in (roman(core.text), based(asked), coloured(asked), dated(asked), timed(asked)):
            if found is not None:
                return found
        return self._measured(asked)

    def _measured(self, asked: str) -> str | None:
        found = next((match for form in UNIT_FORMS if (match := form.fullmatch(asked))), None)
        if found is None:
            return None
        amount = QUANTITIES.get(found["q"]) or number_of(found["q"])
        have, want = UNIT_OF[found["have"]], UNIT_OF[found["want"]]
        if amount is None or have == want or (have in CALENDAR) != (want in CALENDAR):
            return None
        have_unit, want_unit = self._registry.parse_units(have), self._registry.parse_units(want)
        if have_unit.dimensionality != want_unit.dimensionality:
            return None
        value = self._registry.Quantity(amount, have_unit).to(want_unit).magnitude
        return f"{shown(Fraction(value))} {found['want']}"


def dated(asked: str) -> str | None:
    """A date in another notation, or its day of the week."""
    if found := WEEKDAY.fullmatch(asked):
        return written(found[1], "%A")
    for target, form in DATE_FORMATS.items():
        found = re.fullmatch(
            rf"({DATE}) {AS}{target}|{target} (?:of|for) ({DATE})", asked.replace("(", "").replace(")", "")
        )
        if found:
            return written(found[1] or found[2], form)
    return None


def written(date: str, form: str) -> str | None:
    from dateutil import parser

    try:
        return f"{parser.parse(date):{form}}"
    except (ValueError, OverflowError):
        return None


def timed(asked: str) -> str | None:
    """A time of day on the other clock."""
    found = CLOCK.fullmatch(asked) or CLOCK_24.fullmatch(asked)
    if found is None:
        return None
    time = found[1].replace(".", "").replace(" ", "")
    is_12, form = time[-1] == "m", "%I:%M%p" if ":" in time else "%I%p"
    try:
        read = datetime.strptime(time, form if is_12 else "%H:%M")
    except ValueError:
        return None
    return f"{read:%H:%M}" if is_12 else f"{read:%I:%M %p}".lstrip("0")


def based(asked: str) -> str | None:
    """A whole number in another base; without a word or a prefix that says so it is decimal."""
    for form, (digits, source, target) in BASE_FORMS:
        found = form.fullmatch(asked)
        if found is None:
            continue
        number, to = found[digits], BASES[found[target]]
        base = PREFIXES.get(number[:2]) if len(number) > 2 else None
        if source is not None:
            base = BASES[found[source]]
        elif base is None and to != 10:
            base = 10
        try:
            return None if base is None else f"{int(number, base):{SIGNS[to]}}"
        except ValueError:
            return None
    return None


def roman(core: str) -> str | None:
    """A number of 1 to 3999 as a Roman numeral, or the other way; a numeral counts where it is written as usual."""
    if found := TO_ROMAN.fullmatch(core):
        return numeral(int((found[1] or found[2]).replace(",", ""))) or None
    if found := FROM_ROMAN.fullmatch(core):
        wanted = found[1] or found[2] or found[3]
        return next((str(value) for value in range(1, 4000) if numeral(value) == wanted), None)
    return None


def numeral(value: int) -> str:
    """Empty for what has none."""
    if not 0 < value < 4000:
        return ""
    text = ""
    for worth, letters in ROMAN:
        text += letters * (value // worth)
        value %= worth
    return text


def coloured(asked: str) -> str | None:
    """A colour as three numbers."""
    found = TO_RGB.fullmatch(asked)
    return None if found is None else ", ".join(str(part) for part in bytes.fromhex(found[1]))
