"""One natural query per category of the shipped experts.yaml, for the table that `coe up` ends its start with.

None of them stands in the seed set or among the probes, so the router has not seen them.
"""

from __future__ import annotations

from collections.abc import Mapping

QUERIES = {
    "arithmetic": "We are 4 people and the bill is 96 euros. What does each of us pay?",
    "extraction": (
        "Give me name, city and phone as JSON: "
        '"Hello, Petra Lindqvist here, I moved to Bergen last month, call me back on 555-0193."'
    ),
    "classification": 'Is this review positive or negative? "The soup came cold and nobody said sorry."',
    "conversion": "How many kilometres is a 26 mile run?",
    "shell": "How can I find every pdf file below the folder reports?",
    "sql": "Write a query that counts how many orders each customer has in the table orders.",
    "code": "Write a Python function that gives back the longest word of a sentence.",
    "translation": "Translate into Spanish: the train to the coast leaves at nine tomorrow.",
    "rewriting": "Make this sound polite: send me that report now, you are late again.",
    "summarization": (
        "Sum this up in one sentence: The town council met on Monday to talk about the old bridge. Engineers said that "
        "it is safe for people on foot but not for trucks. After two hours the members voted to close it to heavy "
        "traffic until spring and to pay for repairs from the road fund."
    ),
    "facts": "Which ocean lies between Portugal and Brazil?",
    "writing": "Write a few lines of verse about a lighthouse keeper in winter.",
    "advice": "I never fall asleep before two in the morning. What could I change in my evenings?",
    "reasoning": "Nora is older than Piet, and Piet is older than Suri. Who of the three is the youngest, and why?",
    "chat": "Hey you, nice to meet you! How is it going?",
    "general": "the thing from earlier, could you",
}

CONTENTS = "An example of this: {description}"
"""For a category that somebody added: its own description is the best guess at what is asked there."""


def first_queries(categories: Mapping[str, str]) -> dict[str, str]:
    """A query per category, in the order of `categories` (name -> description)."""
    return {
        name: QUERIES.get(name, CONTENTS.format(description=description)) for name, description in categories.items()
    }
