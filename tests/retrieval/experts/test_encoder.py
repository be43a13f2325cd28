from __future__ import annotations

import numpy as np
import pytest

from coe.base.errors import ArtifactError
from coe.base.extras import MissingExtraError
from coe.retrieval.experts import encoder, openai
from coe.retrieval.experts.encoder import Options
from coe.router import plugins
from coe.router.encoders.hashing import HashingEncoder


def test_prefixes_stand_before_each_side() -> None:
    plain = HashingEncoder(64)
    options = Options(encoder="hashing", options={"dim": 64}, query_prefix="query: ", document_prefix="passage: ")
    expert = encoder.build(options)("e5", HashingEncoder(8))
    np.testing.assert_array_equal(expert.encode_queries(["a b", ""]), plain.encode(["query: a b", ""]))
    np.testing.assert_array_equal(expert.encode_documents(["a b"]), plain.encode(["passage: a b"]))
    assert expert.space != plain.fingerprint


def test_its_documents_are_its_own_unless_it_shares_them() -> None:
    base = HashingEncoder(64)
    own = encoder.build(Options(encoder="hashing", options={"dim": 64}))("own", base)
    shared = encoder.build(Options(encoder="hashing", options={"dim": 64}, shares_documents=True))("s", base)
    assert shared.space == base.fingerprint
    assert own.space != base.fingerprint
    with pytest.raises(ArtifactError, match="has 32 dimensions and is to share the base's documents, which have 64"):
        encoder.build(Options(encoder="hashing", options={"dim": 32}, shares_documents=True))("s", base)


def test_an_endpoint_is_an_expert_without_being_asked() -> None:
    options = openai.Options(url="http://127.0.0.1:9/v1", model="e5", dim=3, query_prefix="query: ")
    expert = openai.build(options)("e5", HashingEncoder(8))
    assert expert.dim == 3
    assert expert.encode_queries([""]).tolist() == [[0, 0, 0]]


def test_without_torch_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.base.extras.find_spec", lambda name: None)
    kinds = {
        "router.encoders": ("sentence_transformer", {}),
        "retrieval.experts": ("encoder", {"encoder": "sentence_transformer"}),
    }
    for family, (kind, options) in kinds.items():
        with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[retrieval\]'"):
            plugins.build(family, kind, options)
