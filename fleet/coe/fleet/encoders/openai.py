"""An encoder behind an OpenAI-compatible `/embeddings` endpoint, such as vLLM with `--runner pooling`."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, SecretStr

from coe.base.errors import BackendError, ConfigError
from coe.base.json_text import from_json, to_json
from coe.fleet.calls.json_posts import WHOLE_MODEL, JsonPosts, in_batches
from coe.router.reading.features import fingerprint, unit_rows
from coe.router.section import EnvironmentName, HttpUrl
from coe.router.types import FloatArray, Record


class Options(Record):
    url: HttpUrl = Field(description="API root, e.g. http://127.0.0.1:8001/v1")
    model: str = Field(min_length=1, description="model name on that endpoint")
    dim: int = Field(gt=0, description="dimensions of its vectors; an answer of another length is refused")
    api_key_env: EnvironmentName | None = Field(default=None, description="name of the variable with its key")
    revision: str = Field(default="", description="change it when the endpoint's weights change under the same name")
    encoding: Literal["base64", "float"] = "base64"
    batch_size: int = Field(default=32, ge=1, description="texts in one request")
    truncates: bool = Field(
        default=False, description="a text longer than the model reads counts by its beginning, with a warning; vLLM"
    )
    timeout_s: float = Field(default=10.0, gt=0, le=1e7)


class OpenAIEncoder:
    """Asks in batches; see `JsonPosts`."""

    is_inline = False

    def __init__(self, options: Options, key: SecretStr | None) -> None:
        self._options = options
        url = options.url.rstrip("/") + "/embeddings"
        self._posts = JsonPosts(f"embedding endpoint of model '{options.model}'", url, key, options.timeout_s)

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
        if full:
            asked = [texts[row] for row in full]
            vectors[full] = in_batches(asked, self._options.batch_size, self._request, cuts=self._options.truncates)
        return unit_rows(vectors)

    def _request(self, texts: list[str], cuts: bool) -> FloatArray:
        """(len(texts), d) as the endpoint gave them. Raises BackendError."""
        body: dict[str, object] = {
            "model": self._options.model,
            "input": texts,
            "encoding_format": self._options.encoding,
        }
        if cuts:
            body["truncate_prompt_tokens"] = WHOLE_MODEL
        return read_vectors(self._posts.send(to_json(body)), len(texts), self.dim)


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
        return OpenAIEncoder(options, None)
    # Read here because an encoder may be nested at any depth in others, which know nothing of each other's options.
    key = os.environ.get(options.api_key_env)
    if not key:
        raise ConfigError(f"openai encoder: api_key_env: environment variable {options.api_key_env} is not set")
    return OpenAIEncoder(options, SecretStr(key))


EXAMPLES = (
    Options(url="http://127.0.0.1:8001/v1", model="all-minilm", dim=384),
    Options(url="http://127.0.0.1:8001/v1", model="all-minilm", dim=384, encoding="float", batch_size=2),
)
