"""An `/embeddings` endpoint that answers what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.json_server import JsonHandler, answering

GOOD = {"data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}]}


@dataclass
class Endpoint:
    """Answers with `status` and `body`; keeps what it was asked. `released` lets it answer."""

    url: str = ""
    status: int = 200
    body: object = field(default_factory=lambda: GOOD)
    drops: int = 0  # connections that it closes without having said so
    asked: list[tuple[dict[str, object], str | None]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving_endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    made.released.set()

    class Handler(JsonHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            made.connections.add(self.client_address)
            made.asked.append((self.body(), self.headers["authorization"]))
            made.released.wait(20)
            self.send_json(made.body, made.status)
            if made.drops:
                made.drops -= 1
                self.close_connection = True

    with answering(Handler) as root:
        made.url = f"{root}/v1"
        try:
            yield made
        finally:
            made.released.set()
