"""A transformer encoder of your own through onnxruntime, for example an exported sentence-transformers model.

One text is run at a time. A dynamically quantized model takes its range over the whole batch, padding included, so
texts of a batch would depend on each other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from coe.base.errors import ConfigError
from coe.router.model_files.tokenizer_files import open_tokenizer
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint
from coe.router.types import FloatArray, Record

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer


class Options(Record):
    weights: str = Field(min_length=1, description="an ONNX file whose first output is (1, tokens, d) or (1, d)")
    tokenizer: str = Field(min_length=1, description="its tokenizer.json")
    max_tokens: int = Field(default=128, ge=8, le=512, description="tokens after these are not read")
    threads: int = Field(default=1, ge=1, le=1024)


@dataclass(frozen=True)
class OnnxEncoder:
    """Mean of the last hidden states over the tokens, L2-normalised (Reimers & Gurevych 2019)."""

    session: InferenceSession
    tokenizer: Tokenizer
    inputs: tuple[str, ...]
    dim: int
    fingerprint: str
    is_inline: bool = False

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return np.stack([self.encode_one(text) for text in texts]) if texts else np.zeros((0, self.dim), np.float32)

    def encode_one(self, text: str) -> FloatArray:
        """Encode one text as a vector of shape (d,); zeros for an empty text."""
        if not text.strip():
            return np.zeros(self.dim, dtype=np.float32)
        encoding = self.tokenizer.encode(text)
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {name: np.array([values[name]], dtype=np.int64) for name in self.inputs}
        hidden = self.session.run(None, feed)[0]
        mean: FloatArray = hidden[0].mean(axis=0) if hidden.ndim == 3 else hidden[0]
        norm = float(np.linalg.norm(mean))
        return np.asarray(mean / norm if norm > 0 else mean, dtype=np.float32)


def open_session(
    model: bytes | str, threads: int = 1, *, keeps_memory: bool = False, folder: Path | None = None
) -> InferenceSession:
    """Open a session on the CPU; errors are those of onnxruntime.

    Args:
        threads: of one run.
        keeps_memory: whether the memory of the longest run is kept; else it is released after each run, because texts
            differ in length.
        folder: files that a model given as bytes refers to.
    """
    # Its packages of 2026 report usage to their maker and keep a device id in the home folder unless told not to.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.enable_cpu_mem_arena = keeps_memory
    if folder is not None:
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def build(options: Options) -> OnnxEncoder:
    """Build the encoder from its files.

    Raises:
        ConfigError: a file is not an ONNX model or no tokenizer.
        MissingWeightsError: a file is not there.
    """
    weights, tokenizer_file = resolve_weights(options.weights), resolve_weights(options.tokenizer)
    tokenizer = open_tokenizer(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(options.max_tokens)
    try:
        session = open_session(str(weights), options.threads)
    except Exception as error:  # the library's errors have no other base that is public
        raise ConfigError(f"onnx encoder: {weights} cannot be loaded as an ONNX model") from error
    return OnnxEncoder(
        session=session,
        tokenizer=tokenizer,
        inputs=tuple(node.name for node in session.get_inputs()),
        dim=int(session.get_outputs()[0].shape[-1]),
        fingerprint=fingerprint("onnx", file_sha256(weights), file_sha256(tokenizer_file), options.max_tokens),
    )


IMPORTS = ("onnxruntime", "tokenizers")
EXAMPLES = (
    Options(weights="model.onnx", tokenizer="tokenizer.json"),
    Options(weights="model.onnx", tokenizer="tokenizer.json", max_tokens=64),
)
