"""English, with or without a table's schema, to one SQL query."""

import re

import numpy as np

from examples.smollm2.recipes.phrasing import dress, misspell, pick, pick_some
from examples.smollm2.recipes.task import Example, Split, Task

# table: text columns, number columns, one row, values of each text column
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "employees": (("name", "department", "city"), ("salary", "age")),
    "customers": (("name", "country", "email"), ("age", "balance")),
    "products": (("name", "category", "brand"), ("price", "stock")),
    "orders": (("customer", "status", "city"), ("total", "quantity")),
    "books": (("title", "author", "genre"), ("pages", "year")),
    "students": (("name", "major", "city"), ("grade", "age")),
    "movies": (("title", "director", "genre"), ("rating", "year")),
    "flights": (("origin", "destination", "airline"), ("price", "duration")),
    "users": (("username", "country", "plan"), ("age", "logins")),
    "cars": (("model", "brand", "color"), ("price", "mileage")),
    "invoices": (("customer", "status", "currency"), ("amount", "days")),
    "teams": (("name", "league", "city"), ("points", "wins")),
}
HELD_OUT_TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "patients": (("name", "doctor", "city"), ("age", "weight")),
    "hotels": (("name", "city", "country"), ("price", "stars")),
    "songs": (("title", "artist", "genre"), ("length", "year")),
}
VALUES = (
    "Berlin", "Paris", "sales", "open", "Smith", "France", "red", "premium", "drama", "shipped", "Acme", "gold",
    "Anna", "Boston", "toys", "physics", "closed", "Italy", "USD", "IT", "north", "free", "blue", "Lee",
)  # fmt: skip
# The query's template, then ways to ask for it. {t} table, {c} any column, {x} text column, {v} its value,
# {n} number column, {k} a number, {d} a second column.
PATTERNS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("SELECT * FROM {t};",
     ("show all {t}", "Get everything from {t}", "list all {t}", "Select all rows from {t}", "all {t}"),
     ("give me every row of {t}", "fetch all {t}")),
    ("SELECT {c} FROM {t};",
     ("list the {c} of all {t}", "Get the {c} of every row in {t}", "show {c} from {t}", "all {c} in {t}"),
     ("give me the {c} of all {t}", "I want only the {c} from {t}")),
    ("SELECT * FROM {t} WHERE {x} = '{v}';",
     ("{t} where {x} is {v}", "find all {t} with {x} {v}", "Show {t} whose {x} is '{v}'", "get {t} with {x} = {v}"),
     ("which {t} have the {x} {v}?", "fetch the {t} that have {v} as {x}")),
    ("SELECT {c} FROM {t} WHERE {n} > {k};",
     ("{c} of {t} with {n} over {k}", "Get the {c} of {t} where {n} is greater than {k}",
      "show {c} of {t} with more than {k} {n}",
      "list {c} for {t} whose {n} is above {k}"),
     ("for {t} with {n} higher than {k}, give me the {c}", "find the {c} of {t} whose {n} exceeds {k}")),
    ("SELECT {c} FROM {t} WHERE {n} < {k};",
     ("{c} of {t} with {n} under {k}", "Get the {c} of {t} where {n} is less than {k}",
      "list {c} for {t} whose {n} is below {k}",
      "show {c} of {t} with {n} smaller than {k}"),
     ("for {t} with {n} lower than {k}, give me the {c}", "find the {c} of {t} with less than {k} {n}")),
    ("SELECT COUNT(*) FROM {t};",
     ("how many {t} are there?", "count the {t}", "number of {t}", "Count all rows in {t}"),
     ("what is the number of rows in {t}?", "tell me how many {t} we have")),
    ("SELECT COUNT(*) FROM {t} WHERE {x} = '{v}';",
     ("how many {t} have {x} {v}?", "count {t} where {x} is {v}", "number of {t} with {x} = '{v}'"),
     ("tell me how many {t} have {v} as {x}", "what is the count of {t} whose {x} is {v}?")),
    ("SELECT AVG({n}) FROM {t};",
     ("average {n} of {t}", "what is the mean {n} in {t}?", "Compute the average {n} of all {t}", "avg {n} from {t}"),
     ("on average, what is the {n} of {t}?", "find the mean {n} over all {t}")),
    ("SELECT SUM({n}) FROM {t};",
     ("total {n} of all {t}", "sum of {n} in {t}", "Add up the {n} of {t}", "what is the total {n} in {t}?"),
     ("what do the {n} of all {t} add up to?", "give me the sum of {n} over {t}")),
    ("SELECT MAX({n}) FROM {t};",
     ("highest {n} in {t}", "what is the maximum {n} of {t}?", "largest {n} of all {t}", "max {n} from {t}"),
     ("what's the biggest {n} in {t}?", "find the top {n} value of {t}")),
    ("SELECT {x}, COUNT(*) FROM {t} GROUP BY {x};",
     ("count {t} per {x}", "number of {t} for each {x}", "How many {t} are there by {x}?", "{t} count grouped by {x}"),
     ("for every {x}, how many {t} are there?", "give me the number of {t} by {x}")),
    ("SELECT {x}, AVG({n}) FROM {t} GROUP BY {x};",
     ("average {n} per {x} in {t}", "mean {n} of {t} for each {x}", "What is the average {n} by {x} in {t}?"),
     ("for every {x}, the average {n} of {t}", "avg {n} of {t} grouped by {x}")),
    ("SELECT * FROM {t} ORDER BY {n} DESC LIMIT {l};",
     ("top {l} {t} by {n}", "the {l} {t} with the highest {n}", "Show the {l} {t} with the most {n}",
      "first {l} {t} sorted by {n} descending"),
     ("which {l} {t} have the highest {n}?", "give me the {l} {t} with the largest {n}")),
    ("SELECT {c} FROM {t} ORDER BY {c};",
     ("list {c} of {t} in order", "{c} of all {t} sorted alphabetically", "show the {c} from {t} ordered by {c}"),
     ("give me the {c} of {t}, sorted", "sorted {c} of {t}")),
    ("SELECT DISTINCT {x} FROM {t};",
     ("distinct {x} of {t}", "which different {x} are in {t}?", "unique {x} values in {t}",
      "List every {x} in {t} once"),
     ("give me the unique {x} of {t}", "all {x} of {t} without duplicates")),
    ("DELETE FROM {t} WHERE {x} = '{v}';",
     ("delete {t} where {x} is {v}", "remove all {t} with {x} {v}", "Delete the {t} whose {x} is '{v}'"),
     ("drop every row of {t} with {v} as {x}", "erase {t} whose {x} is {v}")),
    ("UPDATE {t} SET {n} = {k} WHERE {x} = '{v}';",
     ("set {n} to {k} for {t} with {x} {v}", "update {t}: {n} becomes {k} where {x} is {v}",
      "Change the {n} of {t} with {x} '{v}' to {k}"),
     ("for {t} whose {x} is {v}, set {n} to {k}", "make {n} {k} in {t} where {x} equals {v}")),
)  # fmt: skip
FRAMES = {
    Split.TRAIN: (
        "{q}", "{q}", "SQL: {q}", "Write a SQL query: {q}", "{q} (sql)", "sql query to {q}", "I need SQL for this: {q}",
        "Please write SQL. {q}", "Question: {q}\nSQL:", "in sql, {q}", "Translate to SQL: {q}",
    ),
    Split.HELD_OUT: (
        "Give me the SQL for: {q}", "{q}\nQuery:", "Answer with one SQL statement: {q}", "SQL please: {q}",
    ),
}  # fmt: skip
SCHEMAS = {
    Split.TRAIN: (
        "Table {s}. {q}", "Schema: {s}\n{q}", "{q}\nTable: {s}", "CREATE TABLE {s};\n{q}", "Given {s}: {q}",
        "I have a table {s}.\n\n{q}", "{s}\n\n{q}",
    ),
    Split.HELD_OUT: ("Using the table {s}, {q}", "{q}\n\nSchema: {s}", "My table is {s}. {q}"),
}  # fmt: skip
STATEMENT = re.compile(r"\b(?:select|insert|update|delete)\b[^;`]*", re.IGNORECASE)


def _generate(rng: np.random.Generator, split: Split) -> Example:
    tables = TABLES if split is Split.TRAIN or rng.random() < 0.5 else HELD_OUT_TABLES
    table = pick(rng, tuple(tables))
    texts, numbers = tables[table]
    query, train_asks, held_out_asks = pick(rng, PATTERNS)
    fields = {
        "t": table, "c": pick(rng, (*texts, *texts, *numbers)), "x": pick(rng, texts), "v": pick(rng, VALUES),
        "n": pick(rng, numbers), "k": int(rng.integers(1, 50)) * pick(rng, (1, 1, 5, 10, 100)),
        "l": int(rng.integers(2, 21)),
    }  # fmt: skip
    ask = pick(rng, train_asks if split is Split.TRAIN else held_out_asks)
    if rng.random() < 0.1:
        ask = misspell(rng, ask)
    prompt = pick(rng, FRAMES[split]).format(q=ask.format(**fields))
    if rng.random() < 0.5:
        columns = pick_some(rng, (*texts, *numbers), 5)
        schema = f"{table}({', '.join(['id', *columns])})"
        prompt = pick(rng, SCHEMAS[split]).format(s=schema, q=prompt)
    return Example(dress(rng, split, prompt), query.format(**fields))


def _canonical(statement: str) -> str:
    """Lower case, double quotes as single ones, spaces only between words, no alias of an aggregate."""
    text = statement.casefold().replace('"', "'").strip().rstrip(";")
    text = re.sub(r"\) as \w+", ")", text)
    return re.sub(r"\s*([(),=<>*])\s*", r"\1", re.sub(r"\s+", " ", text)).strip()


def _grade(reply: str, example: Example) -> bool:
    """The reply's first SQL statement is the answer, but for case, spaces, quotes and aliases."""
    found = STATEMENT.search(reply)
    return found is not None and _canonical(found[0]) == _canonical(example.answer)


TASK = Task("sql-writer", "sql", max_answer_tokens=60, generate=_generate, grade=_grade)
