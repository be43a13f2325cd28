"""An answer that nobody asked for, on a connection that the encoder keeps."""

from __future__ import annotations

import json
import socketserver
import threading
from typing import ClassVar

import numpy as np

from coe.fleet.encoders.openai import Options, build


def answer(*vector: float) -> bytes:
    body = json.dumps({"data": [{"index": 0, "embedding": vector}]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class Endpoint(socketserver.BaseRequestHandler):
    """Answers with the vector that a text names."""

    connections: ClassVar[list[Endpoint]] = []

    def handle(self) -> None:
        self.connections.append(self)
        received = b""
        try:
            while piece := self.request.recv(65536):
                received += piece
                if received.endswith(b"}"):
                    vector = (1.0, 0.0) if b'"left"' in received else (0.0, 1.0)
                    received = b""
                    self.request.sendall(answer(*vector))
        except ConnectionResetError:  # closed with what it had not read
            pass


def test_a_stray_answer_is_not_the_vector_of_the_next_text() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            encoder = build(Options(url=f"http://127.0.0.1:{server.server_address[1]}/v1", model="m", dim=2))
            np.testing.assert_array_equal(encoder.encode(["left"]), [[1.0, 0.0]])
            Endpoint.connections[0].request.sendall(answer(1.0, 0.0))
            np.testing.assert_array_equal(encoder.encode(["right"]), [[0.0, 1.0]])
            np.testing.assert_array_equal(encoder.encode(["left"]), [[1.0, 0.0]])
            assert len(Endpoint.connections) == 2
            del encoder
        finally:
            server.shutdown()
