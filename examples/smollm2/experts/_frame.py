"""The frame of a question ("hey, can you tell me what ... is, please?") apart from its core, and exact numbers as text.

Only phrases that ask for nothing of their own are removed; a core with any other word is not understood.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

MAX_CHARS = 160
"""A longer text holds more than one bare question."""

MAX_EXACT_PLACES = 10
SHOWN_DIGITS = 7

LEADS = (
    r"hey|hi|hello|please|pls|plz|ok|okay|so|quick question|quick|quickly|math question|question|"
    r"(?:can|could|would|will) you(?: please)?|(?:tell|give|show) me|i need(?: to know)?|i want to know|do you know|"
    r"help me|calculate|compute|evaluate|work out|figure out|solve|find|get|convert|change|turn|switch|translate|"
    r"express|write|put|what do i get if i|the number|"
    r"what(?:'s| is| are| was| does| do| would be| will be)|whats|how much(?: is| are| does| would be)|"
    r"the (?:value|result|answer|exact value) (?:of|to)|"
    r"cu[aá]nto (?:es|son|hace)|calcula|dime|convertir|convierte|combien (?:font|fait)|calcule[rz]?|convertis|"
    r"wie ?viel (?:ist|sind)|was (?:ist|ergibt)|berechne|rechne|quanto (?:fa|[eé])|bitte|por favor|s'il te pla[iî]t"
)
TAILS = (
    r"please|pls|plz|thanks|thank you|thx|for me|equals?|exactly|is|make|(?:number|answer|result|date)s? only|"
    r"(?:just |only )?(?:tell me |give me |answer with )?(?:just |only )?the (?:final )?"
    r"(?:number|price|result|answer|date)(?: only| please)?|only numbers?|no (?:words|explanation|units)|"
    r"three numbers(?: with commas)?|bitte|por favor|s'il te pla[iî]t|svp"
)
FOREIGN = re.compile(
    r"\b(?:cu[aá]nto|calcula|dime|convertir|convierte|combien|calcule[rz]?|convertis|wie ?viel|was|berechne|rechne|"
    r"quanto|bitte|menos|m[aá]s|por|entre|moins|fois|divis[eé]|mal|geteilt|vezes|mais|prozent|von|de|la|el)\b"
)
EDGE = r"(?:[\s,:;!?¿¡]|\.(?!\d))"
LEAD = re.compile(rf"(?:{LEADS})(?:{EDGE}+|$)", re.IGNORECASE)
TAIL = re.compile(rf"(?:^|{EDGE}+(?:-\s*)?)(?:{TAILS})$", re.IGNORECASE)
MARKS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "’": "'", "\u00a0": " ", "·": "*", "→": "->"})


class Core(NamedTuple):
    """The question without its frame; `is_framed` says that a frame marked it as one."""

    text: str
    is_framed: bool


def core_of(text: str) -> Core | None:
    """The core of a question of one line; None where the text is too long to be one, or where a mark in a number may
    mean either of two things: the point of another language, a factorial or an exclamation."""
    has_two_readings = re.search(r"\d!|\.000\b", text) or (
        re.search(r"\d[.,]\d", text) and FOREIGN.search(text.lower())
    )
    if len(text) > MAX_CHARS or "\n" in text.strip() or has_two_readings:
        return None
    whole = " ".join(text.translate(MARKS).split())
    core = re.sub(rf"^{EDGE}+|(?:{EDGE}|=)+$", "", whole)
    while True:
        shorter = TAIL.sub("", LEAD.sub("", core, count=1) if LEAD.match(core) else core)
        shorter = re.sub(rf"^{EDGE}+|(?:{EDGE}|=)+$", "", shorter)
        if shorter == core:
            return Core(core, core != whole)
        core = shorter


def number_of(text: str) -> Fraction | None:
    """The exact value of digits with separators of thousands; None for anything else."""
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    return Fraction(text) if re.fullmatch(r"-?\d+(?:\.\d+)?|-?\.\d+", text) else None


def shown(value: Fraction) -> str:
    """A number as people write it: exact where ten decimal places suffice, otherwise seven significant digits."""
    with localcontext(prec=400):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        if Fraction(exact) != value or -int(exact.normalize().as_tuple().exponent) > MAX_EXACT_PLACES:
            with localcontext(prec=SHOWN_DIGITS):
                exact = +exact
        return f"{exact.normalize():f}"
