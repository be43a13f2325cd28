"""Something around the text: spaces, newlines, a greeting before it, politeness after it. The text itself stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from eval.robustness.cases import Family, Variant

GREETINGS = (
    "Hi! ",
    "Hello,\n\n",
    "Hey there, ",
    "Good morning! ",
    "Hi, I hope you are doing well. ",
    "Hello again! Sorry to bother you. ",
    "Greetings from rainy Lisbon! ",
    "Hey you, long time no see! ",
    "Dear assistant,\n\n",
)
THANKS = (
    "Thanks!",
    "Thank you in advance.",
    "Thanks a lot for your help!",
    "I really appreciate it.",
    "Many thanks and best regards",
    "Have a great weekend!",
    "You are the best!",
    "Cheers, Jo",
)


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Padding:
    """Two variants with white space, one with a greeting, one with thanks, one with both."""

    options: Options

    def __call__(self, text: str, rng: np.random.Generator) -> tuple[Variant, ...]:
        greeting, thanks = str(rng.choice(GREETINGS)), str(rng.choice(THANKS))
        gap = " " if text.rstrip().endswith((".", "!", "?")) else "\n\n"
        return (
            Variant("spaces", f"   {text}     "),
            Variant("newlines", f"\n\n{text}\n\n\n"),
            Variant("greeting", greeting + text),
            Variant("thanks", f"{text}{gap}{thanks}"),
            Variant("greeting_and_thanks", f"{greeting}{text}{gap}{thanks}"),
        )


def build(options: Options) -> Family:
    return Padding(options)


EXAMPLES = (Options(),)
