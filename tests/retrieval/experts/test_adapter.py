from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coe.base.errors import ArtifactError, ConfigError
from coe.retrieval.build_experts import adapter_entries, build_experts
from coe.retrieval.experts import adapter
from coe.retrieval.experts.adapter import AdapterExpert, Options
from coe.retrieval.types import DenseExpert
from coe.router.encoders.hashing import HashingEncoder
from coe.router.retrieval_config import RetrievalConfig
from coe.router.section import PluginConfig
from coe_offline.bert import BertEncoder
from tests.retrieval.experts.adapter_files import (
    ALPHA,
    RANK,
    load_bert,
    lora_arrays,
    write_adapter,
    write_bert,
)

TEXTS = ("what is the law of the court", "dose of the drug", "", "law", "what is the dose is the dose of the drug law")


@pytest.fixture
def base(tmp_path: Path) -> BertEncoder:
    return load_bert(write_bert(tmp_path / "model"))


def attached(folder: Path, base: BertEncoder) -> AdapterExpert:
    return adapter.build(Options(path=str(folder)))("law", base)


def test_an_adapter_equals_weights_that_it_was_merged_into(tmp_path: Path, base: BertEncoder) -> None:
    expert = attached(write_adapter(tmp_path / "law", base), base)
    arrays = load_file(tmp_path / "model" / "model.safetensors")
    changes = lora_arrays()
    for name in [key for key in changes if key.endswith("lora_A.weight")]:
        product = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        up = changes[name.replace("lora_A", "lora_B")]
        arrays[f"{product}.weight"] = arrays[f"{product}.weight"] + ALPHA / RANK * up @ changes[name]
    write_bert(tmp_path / "merged")
    save_file(arrays, tmp_path / "merged" / "model.safetensors")
    merged = load_bert(tmp_path / "merged").encode(TEXTS)
    found = expert.encode_queries(TEXTS)
    np.testing.assert_allclose(found, merged, atol=2e-5)
    assert np.abs(found - base.encode(TEXTS)).max() > 0.1
    np.testing.assert_array_equal(expert.encode_documents(TEXTS), base.encode(TEXTS))
    assert isinstance(expert, DenseExpert)
    assert expert.space == base.fingerprint != expert.fingerprint


def test_several_adapters_and_the_base_run_in_one_batch(tmp_path: Path, base: BertEncoder) -> None:
    law = attached(write_adapter(tmp_path / "law", base), base)
    drug = attached(write_adapter(tmp_path / "drug", base, lora_arrays(seed=2)), base)
    loras = [law.lora, drug.lora, None, None, law.lora]
    mixed = base.encode_with(TEXTS, loras)
    alone = [base.encode_with([text], [lora])[0] for text, lora in zip(TEXTS, loras, strict=True)]
    np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about itself
def test_base_and_adapter_equal_torch(tmp_path: Path, base: BertEncoder) -> None:
    import torch
    from peft import PeftModel
    from transformers import BertModel

    targets = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
    write_adapter(tmp_path / "law", base, target_modules=targets, task_type=None)
    expert = attached(tmp_path / "law", base)
    model = BertModel.from_pretrained(str(tmp_path / "model"), add_pooling_layer=False).eval()

    def torch_vectors(network: torch.nn.Module) -> np.ndarray:
        vectors = []
        for text in (text for text in TEXTS if text):
            ids = torch.tensor([base.tokenizer.encode(text).ids])
            with torch.no_grad():
                hidden = network(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0].mean(0)
            vectors.append(torch.nn.functional.normalize(hidden, dim=0).numpy())
        return np.stack(vectors)

    full = [text for text in TEXTS if text]
    np.testing.assert_allclose(base.encode(full), torch_vectors(model), atol=2e-5)
    adapted = PeftModel.from_pretrained(model, str(tmp_path / "law")).eval()  # changes `model` itself
    np.testing.assert_allclose(expert.encode_queries(full), torch_vectors(adapted), atol=2e-5)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: BertEncoder) -> None:
    folder = write_adapter(tmp_path / "law", base)
    other = load_bert(write_bert(tmp_path / "other", seed=7))
    with pytest.raises(ArtifactError, match=f"was trained for base {base.fingerprint[:12]}, this one is"):
        adapter.build(Options(path=str(folder)))("law", other)
    with pytest.raises(ArtifactError, match=r"such as 'bert' of coe-offline; retrieval\.encoder is 'HashingEncoder'"):
        adapter.build(Options(path=str(folder)))("law", HashingEncoder(16))


def test_a_changed_byte_is_refused(tmp_path: Path, base: BertEncoder) -> None:
    folder = write_adapter(tmp_path / "law", base)
    content = bytearray((folder / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="SHA-256"):
        adapter.build(Options(path=str(folder)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 0}, "r and lora_alpha"),
        ({"use_dora": True}, "only plain LoRA"),
        ({"lora_alpha": None}, "r and lora_alpha"),
    ],
)
def test_settings_that_cannot_be_applied_are_refused(
    tmp_path: Path, base: BertEncoder, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        adapter.build(Options(path=str(write_adapter(tmp_path / "law", base, **config))))


def test_arrays_that_are_no_adapter_are_refused(tmp_path: Path, base: BertEncoder) -> None:
    half = {key: array for key, array in lora_arrays().items() if "lora_A" in key}
    with pytest.raises(ArtifactError, match="lacks a half"):
        adapter.build(Options(path=str(write_adapter(tmp_path / "half", base, half))))
    strange = {"base_model.model.pooler.dense.lora_A.weight": np.zeros((2, 16), np.float32)}
    with pytest.raises(ArtifactError, match="not a LoRA matrix of a product"):
        adapter.build(Options(path=str(write_adapter(tmp_path / "strange", base, strange))))


def test_experts_of_a_section_and_of_a_folder(tmp_path: Path, base: BertEncoder) -> None:
    write_adapter(tmp_path / "adapters" / "law", base)
    section = RetrievalConfig.model_validate(
        {
            "encoder": {"kind": "bert", "model": str(tmp_path / "model"), "max_tokens": 32},
            "experts": {"law": {"kind": "adapter", "path": "adapters/law"}, "words": {"kind": "bm25"}},
        }
    )
    assert list(build_experts(section, tmp_path)) == ["base", "law", "words"]
    assert list(adapter_entries(tmp_path / "adapters")) == ["law"]
    assert list(adapter_entries(tmp_path / "adapters" / "law")) == ["law"]
    with pytest.raises(ConfigError, match="holds no adapter"):
        adapter_entries(tmp_path / "model")


def test_a_missing_manifest_a_wrong_option_and_a_missing_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        adapter.build(Options(path=str(tmp_path)))
    for entry, message in (
        ({"kind": "adaptor"}, "unknown kind 'adaptor'.*did you mean 'adapter'"),
        ({"kind": "adapter", "pth": "x"}, "unknown option; did you mean 'path'"),
        ({"kind": "openai", "url": "http://x", "model": "m", "dim": 3, "api_key_env": "NO_KEY"}, "NO_KEY is not set"),
    ):
        experts = {"law": PluginConfig.model_validate(entry)}
        with pytest.raises(ConfigError, match=message):
            build_experts(RetrievalConfig(encoder=PluginConfig(kind="hashing"), experts=experts), tmp_path)


def test_base_and_auto_are_reserved() -> None:
    for name in ("base", "auto"):
        with pytest.raises(ValueError, match=f"'{name}' is reserved"):
            RetrievalConfig.model_validate({"experts": {name: {"kind": "bm25"}}})


def test_a_manifest_with_an_unknown_key_is_refused(tmp_path: Path, base: BertEncoder) -> None:
    folder = write_adapter(tmp_path / "law", base)
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(values | {"extra": 1}))
    with pytest.raises(ArtifactError, match="not the manifest of a retrieval adapter"):
        adapter.build(Options(path=str(folder)))
