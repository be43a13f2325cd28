"""The network on weights made here against a plain loop; the SentencePiece reader; meaning across languages."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from router.encoders import use_multilingual
from router.encoders._sentencepiece import read_model, read_tokenizer
from router.encoders.use_multilingual import Options, layer_norm, read_weights, windows
from router.errors import ConfigError, MissingWeightsError


def message(field: int, body: bytes) -> bytes:
    return bytes([field << 3 | 2, len(body)]) + body


def piece(text: str, score: float) -> bytes:
    return message(1, message(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + b"\x18\x01")


MODEL = b"".join(
    piece(*p) for p in [("<unk>", 0.0), ("▁", -3.0), ("▁red", -1.0), ("r", -4.0), ("ed", -4.0), ("▁re", -2.5)]
)


def test_pieces_and_segmentation(tmp_path: Path) -> None:
    assert read_model(MODEL)[0][2] == ("▁red", -1.0)
    (tmp_path / "sp.model").write_bytes(MODEL)
    tokenizer = read_tokenizer(tmp_path / "sp.model")
    assert tokenizer.encode("  red  red ").tokens == ["▁red", "▁red"]
    assert tokenizer.encode("red?").ids == [2, 0]


@pytest.mark.parametrize("data", [b"", b"garbage", MODEL[:-3], b"\xff" * 9])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sp.model").write_bytes(data)
    with pytest.raises(ConfigError, match="not a SentencePiece unigram model"):
        read_tokenizer(tmp_path / "sp.model")


def test_windows_are_padded_with_zeros() -> None:
    states = np.array([[1.0], [2.0], [3.0]], np.float32)
    assert windows(states, 3, 1).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0]]
    assert windows(states, 2, 0).tolist() == [[1, 2], [2, 3], [3, 0]]


def test_layer_norm_by_hand() -> None:
    one = np.array([2.0, 2.0], np.float32)
    out = layer_norm(np.array([[1.0, 3.0]], np.float32), one, np.array([0.0, 1.0], np.float32), np.float32(0))
    np.testing.assert_allclose(out, [[-2.0, 3.0]])


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", q1=np.zeros((2, 2), np.uint8))
    with pytest.raises(ConfigError, match=r"weights\.npz does not hold its weights"):
        read_weights(tmp_path / "weights.npz")


def test_a_sentence_lies_nearest_to_its_translation() -> None:
    try:
        encoder = use_multilingual.build(Options())
    except MissingWeightsError as error:
        pytest.skip(str(error))
    english = encoder.encode(["where is the train station?", "the soup is too salty", "please shorten this text"])
    other = encoder.encode(["¿dónde está la estación de tren?", "Die Suppe ist zu salzig", "请缩短这段文字"])
    assert (other @ english.T).argmax(axis=1).tolist() == [0, 1, 2]
