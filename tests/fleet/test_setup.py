"""The first experts.yaml: from endpoints, and from a LiteLLM proxy's file."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.base.errors import ConfigError
from coe.base.shipped import seed_folder
from coe.cli.command_line import run
from coe.fleet.setup.composition import Found, composition_text, safe_name
from coe.fleet.setup.endpoints import Endpoint, prefixes
from coe.fleet.setup.litellm_file import litellm_experts
from coe.retrieval.build_experts import build_expert
from coe.retrieval.experts.encoder import EncoderExpert
from coe.retrieval.reranker import Reranker
from coe.router.config.composition import load_config, parse_text
from coe.router.encoders import hashing
from coe.router.section import check_name
from coe.training.fit_inputs import labelled_queries
from tests.json_server import JsonHandler, answering

MODELS = [
    {"id": "Qwen/Qwen2.5-Coder-32B-Instruct", "owned_by": "vllm", "max_model_len": 32768},
    {"id": "tiny", "meta": {"n_ctx_train": 2048}},
]


class Models(JsonHandler):
    """Lists two models for whoever has the key, at /v1, and for everybody at /open; lists none at /empty."""

    def do_GET(self) -> None:
        is_known = self.headers.get("authorization") == "Bearer right" or self.path.startswith("/open")
        status = 404 if self.path == "/models" else 200 if is_known else 401
        self.send_json({"data": [] if self.path.startswith("/empty") else MODELS}, status)


@pytest.fixture
def address() -> Iterator[str]:
    with answering(Models) as url:
        yield url


def test_every_model_of_an_endpoint_becomes_an_expert(address, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("ENGINE_KEY", "right")
    out = tmp_path / "experts.yaml"
    assert run("init", [f"{address}/v1/", "--api-key-env", "ENGINE_KEY", "--out", str(out)]) == 0
    config = load_config(out)
    coder, tiny = config.experts["Qwen2.5-Coder-32B-Instruct"], config.experts["tiny"]
    assert (coder.engine, coder.url, coder.params_b, coder.context_tokens) == ("vllm", f"{address}/v1", 32.0, 32768)
    assert (tiny.engine, tiny.model, tiny.api_key_env, tiny.context_tokens) == ("openai", "tiny", "ENGINE_KEY", 2048)
    said = capsys.readouterr()
    assert f"coe up --config {out}" in said.out
    assert "params_b is not known of tiny;" in said.err
    assert "supports is not known of Qwen2.5-Coder-32B-Instruct, tiny;" in said.err
    assert "right" not in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{}/v1"], "status 401: it wants a key: --api-key-env names its variable"),
        (["{}/empty", "--api-key-env", "ENGINE_KEY"], "serves no model"),
        (["{}/v1", "--api-key-env", "UNSET_KEY"], "UNSET_KEY is not set"),
        (["{}/v1", "--api-key-env", "ENGINE_KEY", "--model", "tinny"], "did you mean 'tiny'?"),
        (["http://127.0.0.1:9/v1"], "does not answer"),
        (["ftp://host/v1"], "'ftp://host/v1' is not an endpoint"),
        (["host"], "'host' is not an endpoint"),
        (["10.0.0.7:8000/v1"], "'10.0.0.7:8000/v1' is not an endpoint"),
        (["{}", "--api-key-env", "ENGINE_KEY"], "status 404; an API root mostly ends in /v1"),
        ([], "no endpoint is named; allowed: coe init ENDPOINT..."),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_named_and_nothing_is_written(
    address, tmp_path, monkeypatch, capsys, arguments, complaint
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "right")
    out = tmp_path / "experts.yaml"
    assert run("init", [*(each.format(address) for each in arguments), "--out", str(out)]) == 1
    assert complaint in capsys.readouterr().err
    assert not out.exists()


def test_one_model_of_an_endpoint_is_named(address, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ENGINE_KEY", "right")
    out = tmp_path / "experts.yaml"
    assert run("init", [f"{address}/v1", "--api-key-env", "ENGINE_KEY", "--model", "tiny", "--out", str(out)]) == 0
    assert list(load_config(out).experts) == ["tiny"]


VECTOR = [0.6, 0.8, 0.0]


class Gateway(JsonHandler):
    """Chats, embeds, reranks, and says with LiteLLM's `model/info` that `vectors` embeds too; `old-embedder` knows no
    base64; `e5-chat` refuses to embed."""

    def do_GET(self) -> None:
        ids = (
            "chatty",
            "BAAI/bge-m3",
            "vectors",
            "old-embedder",
            "e5-chat",
            "no-reranker",
            "bge-reranker-v2",
            "rerank-2",
        )
        modes = {"vectors": {"mode": "embedding"}, "chatty": {"mode": "chat", "input_cost_per_token": 2e-6}}
        known = [{"model_name": name, "model_info": info} for name, info in modes.items()]
        lists = {"/v1/models": [{"id": name} for name in ids], "/v1/model/info": known}
        self.send_json({"data": lists.get(self.path)}, 200 if self.path in lists else 404)

    def do_POST(self) -> None:
        asked = self.body()
        if self.path == "/v1/rerank" and asked["model"] != "no-reranker":
            scores = [float(text == asked["query"]) for text in asked["documents"]]
            self.send_json({"results": [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]})
            return
        model, encoding = asked["model"], asked.get("encoding_format")
        is_known = self.path == "/v1/embeddings" and model in ("BAAI/bge-m3", "vectors", "old-embedder")
        if not is_known or (model == "old-embedder" and encoding == "base64"):
            self.send_json({"error": {"message": "not this model, or not so"}}, 400)
            return
        packed = b64encode(np.array(VECTOR, dtype="<f4").tobytes()).decode()
        vector = VECTOR if encoding == "float" else packed
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        self.send_json({"data": [{"index": i, "embedding": vector} for i in range(len(texts))]})


def test_models_that_embed_become_embedding_experts_and_one_that_ranks_the_reranker(tmp_path, capsys) -> None:
    out = tmp_path / "experts.yaml"
    with answering(Gateway) as url:
        assert run("init", [f"{url}/v1", "--out", str(out)]) == 0
        config = load_config(out)
        assert list(config.experts) == ["chatty", "e5-chat"]
        assert config.experts["chatty"].price["input"] == 2.0
        assert config.retrieval is not None
        assert list(config.retrieval.experts) == ["words", "bge-m3", "vectors", "old-embedder"]
        for name in ("bge-m3", "vectors", "old-embedder"):
            expert = build_expert(name, config.retrieval.experts[name], tmp_path, hashing.build(hashing.Options()))
            assert isinstance(expert, EncoderExpert)
            assert expert.encode_queries(["x", "y"]) == pytest.approx(np.array([VECTOR, VECTOR]))
        assert config.retrieval.reranker is not None
        assert config.retrieval.reranker.model == "bge-reranker-v2"
        assert Reranker(config.retrieval.reranker, {}).scores("b", ["a", "b"]).tolist() == [0.0, 1.0]
    said = capsys.readouterr()
    assert "'no-reranker' is left out" in said.err
    assert "'rerank-2' is left out" in said.err
    assert "'e5-chat' gave no embedding, and is an expert" in said.err
    assert "/v1/embeddings has bge-m3, vectors, old-embedder" in said.out


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", None, None),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: ", None),
        ("BAAI/bge-m3", None, None),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
    ],
)
def test_a_models_prefixes_are_those_of_its_card(model: str, query: str | None, document: str | None) -> None:
    found = prefixes(model)
    assert (found.get("query_prefix"), found.get("document_prefix")) == (query, document)


class Tei(JsonHandler):
    """Text Embeddings Inference: one model, and no list of it."""

    def do_GET(self) -> None:
        info = {"model_id": "org/plain-name", "model_type": {"embedding": {"pooling": "cls"}}}
        self.send_json(info if self.path == "/info" else {}, 200 if self.path == "/info" else 404)

    def do_POST(self) -> None:
        self.send_json({"data": [{"index": 0, "embedding": VECTOR}]})


def test_an_endpoint_without_a_list_of_models_says_what_its_model_is_for(tmp_path) -> None:
    out = tmp_path / "experts.yaml"
    with answering(Models) as chats, answering(Tei) as tei:
        assert run("init", [f"{tei}/v1", "--out", str(out)]) == 1, "nobody chats"
        assert run("init", [f"{chats}/open", f"{tei}/v1", "--out", str(out)]) == 0
    config = load_config(out)
    assert config.retrieval is not None
    assert config.retrieval.experts["plain-name"].options["dim"] == 3
    assert "plain-name" not in config.experts


def test_a_file_that_exists_is_never_written_over(tmp_path, capsys) -> None:
    out = tmp_path / "experts.yaml"
    out.write_text("mine")
    assert run("init", ["openai/gpt-4o", "--out", str(out)]) == 1
    assert "exists; allowed: a new file" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_categories_for_agents_come_with_labelled_asks(tmp_path) -> None:
    out = tmp_path / "experts.yaml"
    assert run("init", ["openai/gpt-4o", "--agents", "--out", str(out)]) == 0
    config = load_config(out)
    assert {"fix_code", "run_commands", "chat"} < set(config.learned_categories)
    assert "arithmetic" not in config.categories
    counts = Counter(query.category for query in labelled_queries(config, seed_folder()))
    assert min(counts[name] for name in config.learned_categories) >= 100


def test_a_hosted_model_comes_with_its_list_price(tmp_path) -> None:
    if find_spec("litellm") is None:  # imported it takes seconds
        pytest.skip("prices come with the 'providers' extra")
    out = tmp_path / "experts.yaml"
    assert run("init", ["anthropic/claude-sonnet-4-5", "--out", str(out)]) == 0
    expert = load_config(out).experts["claude-sonnet-4-5"]
    assert (expert.engine, expert.api_key_env) == ("litellm", "ANTHROPIC_API_KEY")
    assert expert.chat_price.of_text == (3.0, 15.0)
    assert "tools" in expert.supports
    assert run("init", ["openai/text-embedding-3-small", "--out", str(tmp_path / "other.yaml")]) == 1, (
        "it does not chat"
    )


LITELLM = {
    "model_list": [
        {
            "model_name": "gpt-4o",
            "litellm_params": {
                "model": "azure/gpt-4o-eu",
                "api_base": "https://eu.example/",
                "api_key": "os.environ/AZURE_EU_KEY",
                "api_version": "2024-10-21",
                "rpm": 6,
            },
        },
        {
            "model_name": "gpt-4o",
            "litellm_params": {
                "model": "azure/gpt-4o-us",
                "api_key": "sk-in-the-file",
                "api_version": date(2024, 10, 21),
                "extra_headers": {"x": "y"},
            },
        },
        {
            "model_name": "team/large",
            "litellm_params": {
                "model": "hosted_vllm/org/large",
                "api_base": "http://gpu:8000/v1",
                "api_key": "none",
                "temperature": 0.2,
                "timeout": 120,
                "max_parallel_requests": 16,
            },
            "model_info": {"input_cost_per_token": 2e-6, "max_input_tokens": 8192, "supports_vision": True},
        },
        {
            "model_name": "claude",
            "litellm_params": {"model": "bedrock/x", "aws_secret_access_key": "os.environ/AWS", "max_tokens": 100},
        },
        {"model_name": "*", "litellm_params": {"model": "openai/*"}},
        {"model_name": "vectors", "litellm_params": {"model": "openai/e"}, "model_info": {"mode": "embedding"}},
        {"model_name": "listed", "litellm_params": {"model": "openai/text-embedding-3-small"}},
    ],
    "router_settings": {
        "model_group_alias": {
            "best": "gpt-4o",
            "gone": "nothing",
            "quick": {"model": "team/large"},
            "two words": "gpt-4o",
        },
        "routing_strategy": "x",
        "fallbacks": [{"claude": ["team/large", {"model": "m", "api_key": "sk-x"}, "gpt-4o", "vectors"]}],
    },
    "litellm_settings": {"fallbacks": [{"gone": ["claude"]}]},
    "general_settings": {"master_key": "sk-master"},
    "guardrails": [{"guardrail_name": "pii"}],
}


def test_a_litellm_proxy_becomes_a_composition() -> None:
    found = litellm_experts(LITELLM, "config.yaml")
    text = composition_text(found)
    config = parse_text(text, file="experts.yaml")
    eu, us, large, claude = (config.experts[name] for name in ("gpt-4o-1", "gpt-4o-2", "large", "claude-1"))
    assert (eu.engine, eu.model, eu.url) == ("litellm", "azure/gpt-4o-eu", "https://eu.example/")
    assert (eu.api_key_env, eu.params) == ("AZURE_EU_KEY", {"api_version": "2024-10-21"})
    assert (large.engine, large.model, large.url) == ("vllm", "org/large", "http://gpu:8000/v1")
    assert (large.timeout_s, large.max_concurrency) == (120, 16)
    assert (large.price, large.context_tokens, set(large.supports)) == ({"input": 2.0}, 8192, {"images", "json"})
    assert (large.api_key_env, claude.params_env) == (None, {"aws_secret_access_key": "AWS"})
    assert (claude.params, claude.context_tokens) == ({"max_tokens": 100}, 4096)
    assert config.aliases == {
        "gpt-4o": ("gpt-4o-1", "gpt-4o-2"),
        "team/large": ("large",),
        "claude": ("claude-1", "large", "gpt-4o-1", "gpt-4o-2"),
        "best": ("gpt-4o-1", "gpt-4o-2"),
        "quick": ("large",),
    }
    assert "# The first expert of a list answers" in text
    assert (us.api_key_env, us.params) == ("GPT_4O_US_KEY", {"api_version": "2024-10-21"})
    assert "retrieval.md" not in text
    notes = "\n".join(found.notes)
    for said in (
        "GPT_4O_US_KEY",
        "general_settings.master_key",
        "'vectors' is of mode 'embedding'",
        "'listed' is of mode 'embedding'",
        "model_list.4",
        "'two words' must",
        "model_list.0: not taken over: rpm;",
        "model_list.1: not taken over: extra_headers;",
        "model_list.2: not taken over: temperature;",
        "requests for 'gpt-4o' are not balanced: gpt-4o-1 gets them, the next where it fails",
        "fallbacks of 'claude': without one with settings of its own, vectors, which became no expert",
        "fallbacks of 'gone': without gone, which became no expert",
        "context_tokens is not known of gpt-4o-1, gpt-4o-2, claude-1;",
        "price is not known of gpt-4o-1, gpt-4o-2, claude-1;",
        "guardrails: not taken over",
    ):
        assert said in notes
    assert "sk-" not in notes + text


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([], "has no list `model_list`"),
        ({"model_list": {}}, "has no list `model_list`"),
        ({"model_list": ["x"]}, r"model_list\.0: has no `litellm_params\.model`"),
        ({"model_list": [{"litellm_params": {"model": 3}}]}, r"model_list\.0: has no `litellm_params\.model`"),
        ({"model_list": []}, "no expert was found"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_what_it_lacks(values, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        composition_text(litellm_experts(values, "config.yaml"))


@given(st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=8))
def test_any_names_of_models_become_names_of_their_own(names: list[str]) -> None:
    found = Found()
    for name in names:
        assert found.add(name, {"engine": "echo", "model": "m"}) != "auto"
    assert len(found.experts) == len(names)
    assert all(check_name(name) == name for name in found.experts)
    assert safe_name(safe_name(names[0])) == safe_name(names[0])


@pytest.mark.parametrize(
    ("model", "size"), [("Qwen2.5-7B-Instruct", 7.0), ("m-0.5b", 0.5), ("gpt-4o", None), ("big8bit", None)]
)
def test_a_size_is_read_from_a_name_that_has_one(model, size) -> None:
    assert Endpoint("http://h/v1", None, {model: {}}).entry(model).get("params_b") == size


def test_a_composition_is_made_from_a_proxys_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "config.yaml", tmp_path / "experts.yaml"
    file.write_text("model_list: [{model_name: small, litellm_params: {model: openai/gpt-4o-mini}}]")
    assert run("init", ["--from", str(file), "--out", str(out)]) == 0
    assert "1 expert (small)" in capsys.readouterr().out
    assert load_config(out).experts["small"].model == "openai/gpt-4o-mini"
