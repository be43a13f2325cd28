"""Experts that `coe retrieval train` wrote, and what building a section of experts refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import ArtifactError, ConfigError
from coe.retrieval.build_experts import build_experts
from coe.retrieval.experts import trained
from coe.retrieval.experts.trained import MANIFEST_FILE, Options
from coe.retrieval.types import DenseExpert
from coe.router.config.retrieval import RetrievalConfig
from coe.router.encoders.hashing import HashingEncoder
from coe.router.encoders.onnx import OnnxEncoder
from coe.router.section import PluginConfig
from tests.retrieval.experts.bert_files import load_bert, write_bert, write_trained

TEXTS = ("what is the law of the court", "dose of the drug", "", "law", "what is the dose is the dose of the drug law")


@pytest.fixture
def base(tmp_path: Path) -> OnnxEncoder:
    return load_bert(write_bert(tmp_path / "model"))


def test_queries_go_through_the_model_and_documents_through_the_base(tmp_path: Path, base: OnnxEncoder) -> None:
    folder = write_trained(tmp_path / "law", base)
    expert = trained.build(Options(path=str(folder)))("law", base)
    np.testing.assert_array_equal(expert.encode_queries(TEXTS), load_bert(folder).encode(TEXTS))
    assert np.abs(expert.encode_queries(TEXTS) - base.encode(TEXTS)).max() > 0.1
    np.testing.assert_array_equal(expert.encode_documents(TEXTS), base.encode(TEXTS))
    assert isinstance(expert, DenseExpert)
    assert expert.space == base.fingerprint != expert.fingerprint


def test_other_weights_are_another_expert(tmp_path: Path, base: OnnxEncoder) -> None:
    folders = [write_trained(tmp_path / str(seed), base, seed) for seed in (1, 2)]
    one, other = (trained.build(Options(path=str(folder)))("x", base) for folder in folders)
    assert one.fingerprint != other.fingerprint


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about itself
def test_the_base_without_torch_equals_it_with_torch(tmp_path: Path, base: OnnxEncoder) -> None:
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(str(tmp_path / "model"), add_pooling_layer=False).eval()
    full, vectors = [text for text in TEXTS if text], []
    for text in full:
        ids = torch.tensor([base.tokenizer.encode(text).ids])
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0].mean(0)
        vectors.append(torch.nn.functional.normalize(hidden, dim=0).numpy())
    np.testing.assert_allclose(base.encode(full), np.stack(vectors), atol=2e-5)


def test_an_expert_of_another_base_is_refused(tmp_path: Path, base: OnnxEncoder) -> None:
    build = trained.build(Options(path=str(write_trained(tmp_path / "law", base))))
    for other in (load_bert(write_bert(tmp_path / "other", seed=7)), HashingEncoder(16)):
        with pytest.raises(ArtifactError, match=f"was trained for base {base.fingerprint[:12]}, this one is"):
            build("law", other)


def test_experts_of_a_section(tmp_path: Path, base: OnnxEncoder) -> None:
    write_trained(tmp_path / "trained" / "law", base)
    section = RetrievalConfig.model_validate(
        {
            "encoder": {"kind": "bert", "model": str(tmp_path / "model"), "max_tokens": 32},
            "experts": {"law": {"kind": "trained", "path": "trained/law"}, "words": {"kind": "bm25"}},
        }
    )
    assert list(build_experts(section, tmp_path)) == ["base", "law", "words"]


def test_a_missing_manifest_a_wrong_option_and_a_missing_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        trained.build(Options(path=str(tmp_path)))
    for entry, message in (
        ({"kind": "trainedd"}, "unknown kind 'trainedd'.*did you mean 'trained'"),
        ({"kind": "trained", "pth": "x"}, "unknown option; did you mean 'path'"),
        ({"kind": "openai", "url": "http://x", "model": "m", "dim": 3, "api_key_env": "NO_KEY"}, "NO_KEY is not set"),
    ):
        experts = {"law": PluginConfig.model_validate(entry)}
        with pytest.raises(ConfigError, match=message):
            build_experts(RetrievalConfig(encoder=PluginConfig(kind="hashing"), experts=experts), tmp_path)


def test_base_and_auto_are_reserved() -> None:
    for name in ("base", "auto"):
        with pytest.raises(ValueError, match=f"'{name}' is reserved"):
            RetrievalConfig.model_validate({"experts": {name: {"kind": "bm25"}}})


def test_a_manifest_with_an_unknown_key_is_refused(tmp_path: Path, base: OnnxEncoder) -> None:
    folder = write_trained(tmp_path / "law", base)
    values = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(values | {"extra": 1}))
    with pytest.raises(ArtifactError, match="not the manifest of a retrieval expert"):
        trained.build(Options(path=str(folder)))
