"""The network on weights made here against a plain loop; the SentencePiece reader; meaning across languages."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import ConfigError, MissingWeightsError
from coe.router.encoders.onnx import open_session
from coe.router.model_files.tokenizer_files import head_and_tail
from coe_offline import use_multilingual
from coe_offline.sentencepiece_files import open_sentencepiece
from coe_offline.use_multilingual import WINDOWS, Options, TokenStates, write_graph, write_token_graph
from coe_offline.use_weights import TokenTable, read_arrays


def message(field: int, body: bytes) -> bytes:
    return bytes([field << 3 | 2, len(body)]) + body


def piece(text: str, score: float) -> bytes:
    kind = b"\x18\x02" if text == "<unk>" else b"\x18\x01"
    return message(1, message(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + kind)


MODEL = b"".join(
    piece(*p) for p in [("<unk>", 0.0), ("▁", -3.0), ("▁red", -1.0), ("r", -4.0), ("ed", -4.0), ("▁re", -2.5)]
)


def test_a_model_cuts_a_text_into_its_likeliest_pieces(tmp_path: Path) -> None:
    (tmp_path / "sp.model").write_bytes(MODEL)
    tokenizer = open_sentencepiece(tmp_path / "sp.model")
    assert tokenizer.encode("  red  red ") == [2, 2]
    assert tokenizer.encode("red?") == [2, 0]


def test_of_many_tokens_the_first_and_the_last_are_read() -> None:
    assert head_and_tail(range(10), 10) == range(10)
    assert head_and_tail(range(11), 10) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert head_and_tail(range(99), 9) == [0, 1, 2, 3, 4, 95, 96, 97, 98]


@pytest.mark.parametrize("data", [b"", b"garbage", MODEL[:-3], b"\xff" * 9])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sp.model").write_bytes(data)
    with pytest.raises(ConfigError, match="not a SentencePiece model"):
        open_sentencepiece(tmp_path / "sp.model")


def made_layers(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Layers of the network's shapes."""
    shapes: dict[str, tuple[int, ...]] = {"ln_g": (1280,), "ln_b": (1280,), "cnn_W": (1280, 512), "cnn_b": (512,)}
    shapes |= {"d0": (512, 320), "d1": (320, 320), "p1": (512, 320), "d2": (320, 512), "p3": (320, 512)}
    shapes |= {"d3": (512, 512)}
    for size, _ in WINDOWS:
        shapes |= {f"proj{size}": (512, 256)} | {f"w{step}_{size}": (size * 256, 256) for step in (1, 2)}
        shapes |= {f"{name}{size}": (256,) for name in ("proj_b", "ln_g", "ln_b", "b1_", "b2_")}
    made = {name: rng.normal(size=shape) / shape[0] ** 0.5 for name, shape in shapes.items()}
    return {name: array.astype(np.float32) for name, array in made.items()} | {"eps": np.float32(1e-3)}


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


def normed(values: np.ndarray, gain: np.ndarray, shift: np.ndarray, epsilon: float) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon) * gain + shift


def neighbours(states: np.ndarray, size: int, before: int) -> np.ndarray:
    """Each token's window, token by token."""
    rows = []
    for at in range(len(states)):
        places = range(at - before, at - before + size)
        rows.append(np.concatenate([states[i] if 0 <= i < len(states) else 0 * states[0] for i in places]))
    return np.array(rows)


def by_hand(layers: dict[str, np.ndarray], embedded: np.ndarray, opening: int) -> np.ndarray:
    """The network of the paper in numpy: vectors (2, 512) of all tokens and of the first."""
    eps = float(layers["eps"])
    projected = np.hstack([embedded @ layers[f"proj{size}"] + layers[f"proj_b{size}"] for size, _ in WINDOWS])
    gain, shift = (np.concatenate([layers[f"{name}{size}"] for size, _ in WINDOWS]) for name in ("ln_g", "ln_b"))
    states = np.split(normed(projected, gain, shift, eps), 3, axis=1)
    features = [embedded]
    for (size, before), state in zip(WINDOWS, states, strict=True):
        for step in (1, 2):
            seen = neighbours(state, size, before)
            state = relu(seen @ layers[f"w{step}_{size}"] + layers[f"b{step}_{size}"]) + state
        features.append(state)
    tokens = normed(np.hstack(features), layers["ln_g"], layers["ln_b"], eps)
    vectors = []
    for part in (tokens, tokens[:opening]):
        pooled = (part.sum(axis=0) @ layers["cnn_W"] + len(part) * layers["cnn_b"]) / np.sqrt(len(part))
        inner = relu(pooled @ layers["p1"] + relu(pooled @ layers["d0"]) @ layers["d1"])
        vectors.append(np.tanh(inner @ layers["p3"] + relu(inner @ layers["d2"]) @ layers["d3"]))
    return np.array(vectors)


def made_table(rng: np.random.Generator) -> TokenTable:
    """Tokens with vectors by chance."""
    levels = rng.integers(0, 256, size=(99, 512), dtype=np.uint8)
    scale = np.full(17, 1 / 74, dtype=np.float32)
    return TokenTable(lambda token: levels[token].tobytes(), 512, scale, -128 * scale)


def made_states(table: TokenTable, layers: dict[str, np.ndarray]) -> TokenStates:
    return TokenStates(table, open_session(write_token_graph(layers)))


@pytest.mark.parametrize("length", [2, 3, 9])
def test_the_graphs_are_the_network_of_the_paper(length: int) -> None:
    rng = np.random.default_rng(length)
    layers, table = made_layers(rng), made_table(rng)
    session = open_session(write_graph(layers, opening_tokens=4))
    ids = rng.integers(0, 99, size=length)
    root = np.sqrt(np.array([[length], [min(length, 5)]], np.float32))
    states = made_states(table, layers).of(ids.tolist())
    found, expected = session.run(None, {"states": states, "root": root})[0], by_hand(layers, table.rows(ids), 5)
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert (cosine > 0.98).all()  # weights are in 7 bits, values in 8
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.array([1, 0.7]) / np.hypot(1, 0.7), rtol=1e-5)


def test_a_state_depends_on_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers, table = made_layers(rng), made_table(rng)
    monkeypatch.setattr(use_multilingual, "KEPT_TOKENS", 20)
    states = made_states(table, layers)
    together = states.of(range(30))
    for token in (3, 29, 40):
        alone = made_states(table, layers).of([token])
        np.testing.assert_array_equal(states.of([7, token])[3], alone[2])  # after more tokens than are kept
    np.testing.assert_array_equal(together[2:-2], np.vstack([states.of([token])[2] for token in range(30)]))
    assert not together[:2].any()
    assert not together[-2:].any()


def test_the_states_of_tokens_that_return_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, read = np.random.default_rng(0), list[int]()
    table = made_table(rng)
    monkeypatch.setattr(use_multilingual, "KEPT_TOKENS", 20)
    noted = replace(table, read=lambda token: read.append(token) or table.read(token))
    states = made_states(noted, made_layers(rng))
    for token in [*range(8, 99), 8]:
        states.of([7, token])
    assert read == [7, *range(8, 99), 8]  # those that nobody used since are given up


def test_a_token_is_a_row_of_one_of_17_parts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (34, 3), dtype=np.uint8)
    low, scale = rng.normal(size=(2, 17)).astype(np.float32)
    parts = {f"q{i + 1}": values[i::17] for i in range(17)}
    np.savez(tmp_path / "weights.npz", lo=low, scale=scale, eps=np.float32(1), **parts)
    table, layers = read_arrays(tmp_path / "weights.npz")
    ids = np.array([0, 16, 17, 33])
    expected = [values[i] * scale[i % 17] + low[i % 17] for i in ids]
    np.testing.assert_allclose(table.rows(ids), expected, rtol=1e-6)
    np.testing.assert_allclose(table.mean(ids.tolist()), np.mean(expected, axis=0), rtol=1e-5)
    assert "eps" in layers
    assert table.dim == 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", q1=np.zeros((2, 2), np.uint8))
    with pytest.raises(ConfigError, match=r"weights\.npz does not hold its weights"):
        read_arrays(tmp_path / "weights.npz")


def test_a_sentence_lies_nearest_to_its_translation() -> None:
    try:
        encoder = use_multilingual.build(Options())
    except MissingWeightsError as error:
        pytest.skip(str(error))
    english = encoder.encode(["where is the train station?", "the soup is too salty", "please shorten this text"])
    other = encoder.encode(["¿dónde está la estación de tren?", "Die Suppe ist zu salzig", "请缩短这段文字"])
    assert (other @ english.T).argmax(axis=1).tolist() == [0, 1, 2]
