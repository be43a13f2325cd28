"""`command`: the shell command in the answer is one of the accepted ones, whatever the order of its flags."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from coe.router.answers import AnswerKind, clip, fenced_blocks, first_line
from coe.router.types import Record

_OPERATORS: Final = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "(", ")"})
_WORD_FLAGS: Final = frozenset({"find", "openssl", "ffmpeg"})
"""Commands whose options are whole words after one dash, each followed by its own arguments."""

_CODE_SPAN: Final = re.compile(r"`([^`\n]+)`")

_Segment = tuple[str, ...]


def _segments(command: str) -> tuple[_Segment, ...]:
    """Words between operators, the operators as segments of their own.

    Raises:
        ValueError: an unclosed quote.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    segments: list[list[str]] = [[]]
    for token in lexer:
        if token in _OPERATORS:
            segments += [[token], []]
        else:
            segments[-1].append(token)
    return tuple(tuple(segment) for segment in segments if segment)


def _canonical_words(words: _Segment) -> tuple[object, ...]:
    """Equal for equivalent segments: short flags split (`-la` to `-a -l`) and sorted apart from the operands, whose
    order stays. Not modelled: which flag takes which operand (`-n 5` is not `-n5`, list both in `accepted`)."""
    flags: list[str] = []
    operands: list[str] = []
    for word in words:
        if re.fullmatch(r"-[A-Za-z]{2,}", word):
            flags += [f"-{letter}" for letter in word[1:]]
        elif word.startswith("-") and word != "-":
            flags.append(word)
        else:
            operands.append(word.removesuffix("/") or word)
    return (tuple(operands), tuple(sorted(flags)))


def _canonical_tests(words: _Segment) -> tuple[object, ...]:
    """Canonical words of a command with word flags: a flag keeps its arguments, and the groups may change places."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            groups.append([])
        groups[-1].append(word.removesuffix("/") or word)
    return (tuple(groups[0]), tuple(sorted(tuple(group) for group in groups[1:])))


def _canonical(command: str) -> tuple[tuple[object, ...], ...]:
    """Raises ValueError as `_segments` does."""
    return tuple(
        _canonical_tests(words) if words[0] in _WORD_FLAGS else _canonical_words(words) for words in _segments(command)
    )


def _command_in(answer: str) -> str:
    """The first line of the first fenced block, else the first `code span`, else the first line; no prompt sign."""
    blocks = fenced_blocks(answer)
    line = first_line(blocks[0] if blocks else answer)
    span = _CODE_SPAN.search(answer)
    if not blocks and span:
        line = span.group(1)
    return line.strip().removeprefix("$ ").removesuffix(";").strip()


def _parses(command: str) -> str:
    if not _canonical(command):
        raise ValueError("must hold a command")
    return command


class Options(Record):
    """`accepted`: every command that does what was asked, as one line each. Compared word by word as a POSIX shell
    splits them, so quoting style and white space do not matter; nothing is run or expanded. `-la`, `-al`, `-l -a` and
    `-a -l` are the same; `.` and `./` are the same."""

    accepted: tuple[Annotated[str, AfterValidator(_parses)], ...] = Field(min_length=1)


def build(options: Options) -> AnswerKind:
    """Scores are 1 or 0. The command is read from a fenced block, a code span or the first line."""
    accepted = frozenset(_canonical(command) for command in options.accepted)

    def score(answer: str) -> float:
        try:
            return float(_canonical(_command_in(clip(answer))) in accepted)
        except ValueError:
            return 0.0

    return AnswerKind(score=score)


EXAMPLES = (
    Options(accepted=("ls -la",)),
    Options(accepted=("find . -type f -name '*.py' | wc -l", "find -type f -name '*.py' | wc -l")),
)
