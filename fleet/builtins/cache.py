"""The cache of answers that a team got before. The gateway keeps and finds them (gateway/answer_cache.py): a text alone
does not tell whose it is."""

from __future__ import annotations

from pydantic import Field

from fleet.builtins import Builtin
from router.section import Section


class Options(Section):
    """Options of the cache."""

    max_age_s: int = Field(default=3600, ge=1, description="seconds after which an answer is forgotten")


EXAMPLES = (Options(), Options(max_age_s=60))


def build(options: Options) -> Builtin:
    return NoAnswer()


class NoAnswer:
    """Abstains, as a cache does from whatever it has not seen."""

    def answer(self, text: str) -> str | None:
        return None
