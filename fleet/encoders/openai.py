"""An encoder behind an OpenAI-compatible `/embeddings` endpoint, such as vLLM with `--runner pooling`."""

from __future__ import annotations

import base64
import binascii
import http.client
import os
import select
import weakref
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, SecretStr

from base.errors import BackendError, ConfigError
from base.json_text import from_json, to_json
from router.features import unit_rows
from router.section import EnvironmentName, HttpUrl
from router.types import FloatArray, Record
from router.weights import fingerprint

MAX_ANSWER_BYTES = 256 << 20


class Options(Record):
    url: HttpUrl = Field(description="API root, e.g. http://127.0.0.1:8001/v1")
    model: str = Field(min_length=1, description="model name on that endpoint")
    dim: int = Field(gt=0, description="dimensions of its vectors; an answer of another length is refused")
    api_key_env: EnvironmentName | None = Field(default=None, description="name of the variable with its key")
    api_key: SecretStr | None = Field(default=None, description="the key itself, where no variable can hold it")
    revision: str = Field(default="", description="change it when the endpoint's weights change under the same name")
    encoding: Literal["base64", "float"] = "base64"
    batch_size: int = Field(default=32, ge=1, description="texts in one request")
    timeout_s: float = Field(default=10.0, gt=0, le=1e7)


class OpenAIEncoder:
    """Connections stay open between calls, one per call that runs at the same time; they go with the encoder."""

    is_inline = False

    def __init__(self, options: Options) -> None:
        self._options = options
        self._url = urlsplit(options.url.rstrip("/") + "/embeddings")
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, close_all, self._idle)

    @property
    def dim(self) -> int:
        return self._options.dim

    @property
    def fingerprint(self) -> str:
        """Of the model's name and revision: what the endpoint really runs cannot be seen from here."""
        return fingerprint("openai", self._options.model, self._options.revision, self._options.dim)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        full = [row for row, text in enumerate(texts) if text.strip()]
        for start in range(0, len(full), self._options.batch_size):
            rows = full[start : start + self._options.batch_size]
            vectors[rows] = self._request([texts[row] for row in rows])
        return unit_rows(vectors)

    def _request(self, texts: list[str]) -> FloatArray:
        """(len(texts), d) as the endpoint gave them. Raises BackendError."""
        body = to_json({"model": self._options.model, "input": texts, "encoding_format": self._options.encoding})
        status, answer = self._post(body)
        if status != 200:
            raise BackendError(
                f"embedding endpoint answered {status} for model '{self._options.model}'",
                status=502,
                is_retryable=status in (429, 500, 502, 503, 504),
            )
        return read_vectors(answer, len(texts), self.dim)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of one POST. Embedding again does no harm, so a connection that was kept open and turns out
        dead is replaced by a new one."""
        try:
            if (kept := self._kept()) is not None:
                try:
                    return self._send(kept, body)
                except (http.client.HTTPException, ConnectionError):
                    pass
            return self._send(self._connect(), body)
        except TimeoutError as error:
            raise BackendError(
                f"embedding endpoint gave no answer within {self._options.timeout_s:g} s", status=504, is_retryable=True
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise BackendError(
                f"embedding endpoint cannot be reached ({type(error).__name__})", status=503, is_retryable=True
            ) from error

    def _kept(self) -> http.client.HTTPConnection | None:
        """An open connection without bytes that wait in it: they are of no answer to the next request."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has it
                return None
            waiting = select.poll()  # `select` itself takes no descriptor above 1,023
            waiting.register(connection.sock, select.POLLIN)
            if not waiting.poll(0):
                return connection
            connection.close()
        return None

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": "coe"}
        if self._options.api_key is not None:
            headers["Authorization"] = f"Bearer {self._options.api_key.get_secret_value()}"
        try:
            connection.request("POST", self._url.path, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
        except (http.client.HTTPException, OSError):
            connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.netloc, timeout=self._options.timeout_s)


def close_all(connections: list[http.client.HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def read_vectors(answer: bytes, n: int, dim: int) -> FloatArray:
    """(n, d) from an `/embeddings` answer, in the order of `index`; numbers or base64 of little-endian float32.

    Raises:
        BackendError: the answer is not of that form, or has other sizes.
    """
    vectors = np.full((n, dim), np.nan, dtype=np.float32)
    try:
        answered = from_json(answer, max_values=n * (dim + 16) + 1000, has_unique_keys=False)
        for item in answered["data"]:
            raw = item["embedding"]
            values = (
                np.frombuffer(base64.b64decode(raw, validate=True), dtype="<f4")
                if isinstance(raw, str)
                else np.asarray(raw)
            )
            if len(values) != dim:
                raise BackendError(f"embedding endpoint gave {len(values)} dimensions; expected {dim}")
            vectors[item["index"]] = values
    except (binascii.Error, KeyError, TypeError, ValueError, IndexError) as error:
        raise BackendError("embedding endpoint gave an answer that is not a list of embeddings") from error
    if not np.isfinite(vectors).all():
        raise BackendError(f"embedding endpoint did not give a finite vector for each of {n} texts")
    return vectors


def build(options: Options) -> OpenAIEncoder:
    """Connects at the first call only. Raises ConfigError when the variable of its key is not set."""
    if options.api_key_env is None:
        return OpenAIEncoder(options)
    # Read here because an encoder may be nested at any depth in others, which know nothing of each other's options.
    key = os.environ.get(options.api_key_env)
    if not key:
        raise ConfigError(f"openai encoder: api_key_env: environment variable {options.api_key_env} is not set")
    return OpenAIEncoder(options.model_copy(update={"api_key": SecretStr(key)}))


EXAMPLES = (
    Options(url="http://127.0.0.1:8001/v1", model="all-minilm", dim=384),
    Options(url="http://127.0.0.1:8001/v1", model="all-minilm", dim=384, encoding="float", batch_size=2),
)
