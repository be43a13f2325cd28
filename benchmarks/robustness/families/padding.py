"""Something around the text: spaces, newlines, a greeting before it, politeness after it. The text itself stays."""

from __future__ import annotations

import numpy as np

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


def variants(text: str, rng: np.random.Generator) -> dict[str, str]:
    """Two with white space, one with a greeting, one with thanks, one with both."""
    greeting, thanks = str(rng.choice(GREETINGS)), str(rng.choice(THANKS))
    gap = " " if text.rstrip().endswith((".", "!", "?")) else "\n\n"
    return {
        "spaces": f"   {text}     ",
        "newlines": f"\n\n{text}\n\n\n",
        "greeting": greeting + text,
        "thanks": f"{text}{gap}{thanks}",
        "greeting_and_thanks": f"{greeting}{text}{gap}{thanks}",
    }
