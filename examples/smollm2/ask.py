"""Asks one query of each category of the demo: `python examples/smollm2/ask.py [http://127.0.0.1:8000/v1]`.

The router has not seen them: none is a seed prompt or a probe.
"""

from __future__ import annotations

import json
import sys
import time
from urllib.request import Request, urlopen

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
FORM = "{:21}{:16}{:7}{:10}{}"


def main(root: str = "http://127.0.0.1:8000/v1") -> None:
    print(FORM.format("query", "category", "conf.", "answer", "expert"))
    for query in QUERIES.values():
        body = {"model": "auto", "messages": [{"role": "user", "content": query}], "max_tokens": 12, "temperature": 0}
        headers = {"content-type": "application/json", "x-coe-probe": "1"}
        begin_s = time.perf_counter()
        with urlopen(Request(f"{root}/chat/completions", json.dumps(body).encode(), headers)) as answer:
            answer.read()
            said = {name: answer.headers.get(f"x-coe-{name}", "") for name in ("category", "confidence", "expert")}
            took, note = f"{1e3 * (time.perf_counter() - begin_s):.0f} ms", answer.headers.get("x-coe-fallback")
        expert = f"{said['expert']}, {note}" if note else said["expert"]
        print(FORM.format(query[:20], said["category"], said["confidence"][:4], took, expert), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
