"""Finds the words of a text that are prose, free to be changed, and not numbers, code, quotations or names of things.

Recognition is by shape and leans to protection: a word wrongly protected makes a case milder, a word wrongly changed
would make it ask for something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

PROTECTED = (
    r"`[^`\n]+`",
    r"\"[^\"]+\"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|「[^」]+」|『[^』]+』|‘[^’]+’",
    r"(?<!\w)'[^'\n]+'(?!\w)",
    r"\{[^{}]*\}|\[[^\[\]]*\]|<[^<>\n]+>",
    r"[\w.]+\([^()\n]*\)",  # a call, a table with its columns
    r"^(?: {2,}|\t).*$",  # an indented line
    r"^.*[;{}]\s*$",
    r"^.*(?:=>|==|!=|\+=|&&|\|\||::).*$",
    r"^.*\w\.\w+\(.*$",  # a method call: the line is code, or most of it
    r"^.*\w+\([^()\n]*\)[ \t]*[=:{].*$",
    r"^\s*(?:for|while|if|elif|else|try|except|with)\b.*:\s*$",
    r"(?<!\w)(?:def|fn|func|function|class|struct|interface)\s+\w+\s*[(:{<].*$",
    r"(?<!\w)(?:const|let|var|import|return|print|#include|public|private|static)\s+[\w<{*].*[=;(>.].*$",
    r"(?i:\bselect\b[^\n]+\bfrom\b|\binsert\s+into\b|\bdelete\s+from\b|\bupdate\s+\w+\s+set\b|\bcreate\s+table\b).*$",
    r"^\s*\$ .*$",
    r"\b[\w.-]+(?:\s+--?\w[\w=-]*)+",  # a command with its flags
    r"\b\w+(?:\s*/\s*\w+)+\b",  # a choice of labels, a path, a date
    r"\d[\d.,:]*\s*[^\W\d_]{1,4}\b",  # a number with its unit
    r"\b[MDCLXVI]{2,}\b",
    r"\w+ = \S+",
)
SURROUNDING = "()[]{}<>.,;:!?¿¡…。、，！？；：·—–*'’‘"
NUMBER_WORDS = frozenset(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third
    quarter dozen double twice null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig
    vierzig fünfzig hundert tausend halb viertel uno dos tres cuatro cinco seis siete ocho nueve diez once doce veinte
    treinta cien ciento mil medio mitad tercio cuarto deux trois quatre cinq sept huit neuf dix onze douze vingt trente
    cent mille demi tiers quart due tre quattro cinque sette otto nove dieci venti cento mezzo dois três quatro cinco
    sete oito dez vinte cem metade один два три четыре пять шесть семь восемь девять десять двадцать сто тысяча
    половина""".split()  # noqa: SIM905
)
"""A slip in one of these could change a number."""

GREETINGS = re.compile(
    r"(?i)\W*(?:hi|hey|hello|yo|thanks?|thank|thx|cheers|bye|goodbye|good|ok|okay|lol|haha|wow|nice|sorry|i|i'm|im|i’m|"
    r"i've|you|you're|my|we|that|hola|gracias|buenos|buenas|adiós|bonjour|salut|merci|bonsoir|coucou|hallo|danke|guten|"
    r"moin|tschüss|ciao|grazie|buongiorno|buonasera|olá|oi|obrigado|obrigada|bom|boa|hoi|bedankt|dank|cześć|dzięki|"
    r"dziękuję|hej|tack|merhaba|selam|teşekkürler|привет|спасибо|здравствуй|здравствуйте|пока|مرحبا|شكرا|السلام|"
    r"नमस्ते|धन्यवाद)\b|\W*(?:你好|谢谢|您好|早上好|こんにちは|ありがとう|おはよう|안녕|고마워|감사)"
)
SHORT_TALK_WORDS = 12


@dataclass(frozen=True, slots=True)
class Word:
    """A prose word: its place in the text, and whether a sentence begins with it."""

    start: int
    end: int
    is_first: bool


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(pattern, re.MULTILINE | (re.DOTALL if i == 0 else 0)) for i, pattern in enumerate(PROTECTED)
    )


def prose_words(text: str) -> tuple[Word, ...]:
    """The words that are only letters, perhaps with an apostrophe or hyphen, outside of every protected stretch."""
    is_protected = bytearray(len(text))
    for match in (match for pattern in patterns() for match in pattern.finditer(text)):
        is_protected[match.start() : match.end()] = b"\1" * len(match.group())
    words: list[Word] = []
    for match in re.finditer(r"\S+", text):
        token = match.group()
        inner = token.strip(SURROUNDING)
        start = match.start() + token.find(inner) if inner else match.start()
        is_first = not words or not text[: match.start()].rstrip() or text[: match.start()].rstrip()[-1] in ".!?:\n"
        if is_word(inner) and not any(is_protected[start : start + len(inner)]):
            words.append(Word(start, start + len(inner), is_first))
    return tuple(words)


def is_word(token: str) -> bool:
    letters = re.sub(r"(?<=\w)['’-](?=\w)", "", token)
    return bool(letters) and letters.isalpha()


def is_question(text: str) -> bool:
    return text.rstrip().endswith(("?", "？", "؟"))


def is_small_talk(text: str) -> bool:
    """A short remark that asks for nothing. Put behind "Task:" it would mean something else."""
    return not is_question(text) and len(text.split()) <= SHORT_TALK_WORDS and GREETINGS.match(text) is not None


def has_fence(text: str) -> bool:
    return "```" in text or "~~~" in text
