"""Short text and field names in, one JSON object with exactly these keys out; null for what is absent."""

import json
from collections.abc import Callable

import numpy as np

from examples.smollm2.recipes.phrasing import dress, misspell, pick, pick_some
from examples.smollm2.recipes.task import Example, Split, Task

# Texts name their fields in braces; the held-out ones tell of the same fields in other sentences.
TEXTS = {
    Split.TRAIN: (
        "{name} from {city} ordered {quantity} {product} on {date}.",
        "Order {order_id}: {quantity} {product} for {name}, total {amount}.",
        "Hi, I'm {name}, I live in {city} and my email is {email}.",
        "{name} works at {company} in {city}. Phone: {phone}.",
        "Invoice from {company} dated {date}, amount due {amount}.",
        "Meeting with {name} of {company} on {date} at {time} in {city}.",
        "Please call {name} at {phone} before {time}.",
        "The {product} costs {amount} and ships from {city} on {date}.",
        "{name} paid {amount} to {company} on {date}.",
        "Ticket {order_id} was opened by {name} ({email}) on {date}.",
        "My name is {name}. I bought a {product} from {company} for {amount}.",
        "{company} is hiring in {city}. Contact {name}, {email}.",
        "Flight to {city} leaves on {date} at {time}. Passenger: {name}.",
        "Dear team, order {order_id} with {quantity} {product} never arrived in {city}. {name}, {phone}",
        "Reminder: {name} has an appointment on {date} at {time}.",
        "{quantity} {product} were sent to {company}, {city}, reference {order_id}.",
    ),
    Split.HELD_OUT: (
        "On {date}, {name} in {city} bought {quantity} {product}.",
        "This is {name} from {company}; you can reach me at {email} or {phone}.",
        "Receipt {order_id}: {product}, {amount}, sold by {company}.",
        "The train to {city} departs at {time} on {date}, booked for {name}.",
        "{company} charged {name} {amount} for {quantity} {product}.",
        "Could you meet {name} in {city} at {time}? The number is {phone}.",
    ),
}
REQUESTS = {
    Split.TRAIN: (
        "Extract {fields} as JSON from: {text}", "Extract {fields} from this text as JSON:\n{text}",
        "{text}\n\nExtract: {fields}", "Get {fields} from the text below. Answer in JSON.\n\n{text}",
        'Return a JSON object with the keys {fields} for: "{text}"', "Text: {text}\nFields: {fields}\nJSON:",
        "Please pull out {fields} as JSON. {text}", "fields: {fields}\n{text}", "{text} -> {fields} json",
        "From the following message, extract {fields} into JSON.\n\n{text}", "json with {fields}: {text}",
        "Find the {fields} in this sentence and give me JSON: {text}",
        "I need {fields} out of this as a JSON object:\n\n{text}", "{text}\nGive me {fields} as json",
        "What are the {fields} here? Reply with JSON.\n{text}", "Parse this. Keys: {fields}. Text: {text}",
    ),
    Split.HELD_OUT: (
        "Fill a JSON object with {fields} using this text: {text}", "{text}\n\nJSON keys wanted: {fields}",
        "Read the note and output {fields} as JSON.\nNote: {text}", "Turn this into JSON ({fields}): {text}",
        "Identify {fields}; respond in JSON.\n\n{text}", "structured data please, {fields}:\n{text}",
    ),
}  # fmt: skip
JOINERS = (", ", ", ", " and ", " / ", "; ")
FIRST = {
    Split.TRAIN: (
        "Anna", "Peter", "Maria", "John", "Sofia", "Ahmed", "Lena", "Carlos", "Emily", "Yuki", "David", "Nina",
        "Omar", "Laura", "Victor", "Grace", "Ivan", "Chloe", "Marco", "Ruth", "Jonas", "Priya", "Hugo", "Alice",
    ),
    Split.HELD_OUT: ("Martin", "Elena", "Samuel", "Aisha", "Oliver", "Hannah", "Diego", "Ingrid"),
}  # fmt: skip
LAST = {
    Split.TRAIN: (
        "Smith", "Müller", "Garcia", "Johnson", "Rossi", "Khan", "Novak", "Lopez", "Brown", "Tanaka", "Cohen",
        "Petrov", "Hassan", "Martin", "Clark", "Weber", "Silva", "Dubois", "Larsen", "Moore", "Singh", "Evans",
    ),
    Split.HELD_OUT: ("Taylor", "Fischer", "Romero", "Walker", "Bianchi", "Ali", "Kowalski", "Reed"),
}  # fmt: skip
CITIES = {
    Split.TRAIN: (
        "Berlin", "Paris", "Madrid", "Boston", "Rome", "Tokyo", "Vienna", "Chicago", "Oslo", "Lisbon", "Dublin",
        "Seattle", "Prague", "Munich", "New York", "Toronto", "Milan", "Cairo", "Austin", "Zurich", "Athens",
    ),
    Split.HELD_OUT: ("Hamburg", "Lyon", "Denver", "Warsaw", "Sydney", "Geneva", "San Diego", "Delhi"),
}  # fmt: skip
COMPANIES = {
    Split.TRAIN: (
        "Acme Corp", "Globex", "Initech", "Northwind", "Blue Ocean Ltd", "Umbrella Inc", "Stark Industries",
        "Sunrise Foods", "Vertex Labs", "Delta Systems", "Green Leaf", "Contoso", "Silverline", "Orbit Media",
    ),
    Split.HELD_OUT: ("Redwood Partners", "Fabrikam", "Lumen Works", "Polar Logistics", "Brightside Co"),
}  # fmt: skip
PRODUCTS = {
    Split.TRAIN: (
        "laptop", "desk lamp", "coffee machine", "chairs", "headphones", "monitor", "bicycle", "books", "tents",
        "phone case", "keyboards", "backpack", "printer", "water bottles", "camera", "shoes", "tablets", "sofa",
    ),
    Split.HELD_OUT: ("microphone", "blankets", "office chair", "toaster", "guitars", "sunglasses"),
}  # fmt: skip
MONTHS = ("January", "March", "April", "May", "June", "July", "August", "September", "October", "December")
SYNONYMS = {"order_id": ("order_id", "order_id", "order number", "id"), "amount": ("amount", "total", "price")}


def _number(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high))


def _date(rng: np.random.Generator, split: Split) -> str:
    month, day, year = pick(rng, MONTHS), _number(rng, 1, 29), _number(rng, 2019, 2028)
    forms = (f"{month} {day}", f"{year}-{_number(rng, 1, 13):02}-{day:02}", f"{day} {month} {year}")
    return pick(rng, (*forms, f"{month} {day}, {year}"))


def _time(rng: np.random.Generator, split: Split) -> str:
    hour, minute = _number(rng, 8, 20), 5 * _number(rng, 0, 12)
    return pick(rng, (f"{hour}:{minute:02}", f"{(hour - 1) % 12 + 1} {'am' if hour < 12 else 'pm'}"))


def _amount(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _number(rng, 5, 900), _number(rng, 0, 100)
    return pick(rng, (f"${whole}", f"${whole}.{cents:02}", f"{whole} EUR", f"€{whole}", f"{whole} dollars"))


def _order_id(rng: np.random.Generator, split: Split) -> str:
    number = _number(rng, 100, 99999)
    return pick(rng, (f"{number}", f"#{number}", f"A-{number}", f"ORD-{number}", f"INV{number}"))


def _phone(rng: np.random.Generator, split: Split) -> str:
    a, b, c = _number(rng, 100, 999), _number(rng, 100, 999), _number(rng, 1000, 9999)
    return pick(rng, (f"{a}-{b}-{c}", f"555-{c}", f"+1 {a} {b} {c}", f"0{a} {c}"))


def _email(rng: np.random.Generator, split: Split) -> str:
    first, last = pick(rng, FIRST[split]).lower(), pick(rng, LAST[split]).lower().replace("ü", "u")
    user = pick(rng, (first, f"{first}.{last}", f"{first[0]}{last}", f"{last}{_number(rng, 1, 99)}"))
    return f"{user}@{pick(rng, ('example.com', 'mail.com', 'acme.org', 'test.net', 'post.io'))}"


def _quantity(rng: np.random.Generator, split: Split) -> str:
    return str(_number(rng, 2, 60))


def _name(rng: np.random.Generator, split: Split) -> str:
    first = pick(rng, FIRST[split])
    return first if rng.random() < 0.2 else f"{first} {pick(rng, LAST[split])}"


MAKERS: dict[str, Callable[[np.random.Generator, Split], str]] = {
    "name": _name,
    "city": lambda rng, split: pick(rng, CITIES[split]),
    "company": lambda rng, split: pick(rng, COMPANIES[split]),
    "product": lambda rng, split: pick(rng, PRODUCTS[split]),
    "date": _date,
    "time": _time,
    "amount": _amount,
    "order_id": _order_id,
    "phone": _phone,
    "email": _email,
    "quantity": _quantity,
}


def _choose_fields(rng: np.random.Generator, text: str) -> list[str]:
    """One to four fields; one request in six asks for one that the text does not hold."""
    present = [field for field in MAKERS if f"{{{field}}}" in text]
    chosen = pick_some(rng, present, int(rng.integers(1, 5)))
    if rng.random() < 1 / 6:
        absent = pick(rng, [field for field in MAKERS if field not in present])
        chosen = [*chosen[:3], absent]
    return pick_some(rng, chosen, len(chosen))


def _generate(rng: np.random.Generator, split: Split) -> Example:
    text = pick(rng, TEXTS[split])
    fields = _choose_fields(rng, text)
    values = {field: make(rng, split) for field, make in MAKERS.items()}
    keys = [pick(rng, SYNONYMS.get(field, (field,))) for field in fields]
    answer = {key: values[field] if f"{{{field}}}" in text else None for key, field in zip(keys, fields, strict=True)}
    request = pick(rng, REQUESTS[split])
    if rng.random() < 0.1:
        request = misspell(rng, request)
    prompt = request.format(fields=pick(rng, JOINERS).join(keys), text=text.format(**values))
    return Example(dress(rng, split, prompt), json.dumps(answer, ensure_ascii=False))


def _grade(reply: str, example: Example) -> bool:
    """The first JSON object in the reply has the same keys and, case aside, the same values."""
    start = reply.find("{")
    if start < 0:
        return False
    try:
        found, _ = json.JSONDecoder().raw_decode(reply[start:])
    except json.JSONDecodeError:
        return False
    return _normalise(found) == _normalise(json.loads(example.answer))


def _normalise(values: dict[str, object]) -> dict[str, str | None]:
    return {key: None if value is None else str(value).strip().rstrip(".").casefold() for key, value in values.items()}


TASK = Task("extractor", "extraction", max_answer_tokens=90, generate=_generate, grade=_grade)
