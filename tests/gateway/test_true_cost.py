"""What an answer costs, against litellm: usage objects of six providers, as whole answers and as streams."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from coe.gateway.chat.adapters import messages_answer, responses_answer
from coe.gateway.experts.answer_reader import StreamReader, read_answer
from coe.router.config.expert import ExpertConfig
from coe.router.prices.cost import Price, cost
from coe.router.prices.price_list import entry_prices, price_entry, price_table
from coe.router.prices.usage import Usage, chat_usage, usage_of

Json = dict[str, Any]
N = 1000
PROVIDERS = ("openai", "anthropic", "gemini", "deepseek", "xai", "hosted_vllm")
VLLM = {"price": {"input": 0.4, "output": 1.1, "cache_read": 0.05}}


def models_of(provider: str) -> list[str]:
    """Models in litellm's notation that are priced by token, at all hours alike."""
    mine = (name for name, facts in price_table().items() if facts.get("litellm_provider") == provider)
    names = {f"{provider}/{name.removeprefix(f'{provider}/')}" for name in mine}
    return sorted(name for name in names if has_one_price(price_entry(name)))


def has_one_price(facts: Mapping[str, Any]) -> bool:
    return facts.get("mode") == "chat" and bool(facts.get("input_cost_per_token")) and "off_peak_pricing" not in facts


def part(rng: random.Random, whole: int) -> int:
    """A share of some tokens: often none, now and then all."""
    return rng.choice((0, 0, rng.randint(0, whole), rng.randint(0, whole), whole))


def openai(rng: random.Random, prompt: int, answer: int) -> Json:
    read = part(rng, prompt)
    written = part(rng, prompt - read)
    audio, images = part(rng, prompt), 0
    images = part(rng, prompt - audio)
    spoken = part(rng, answer)
    details: Json = {
        "cached_tokens": read,
        "cache_write_tokens": written,
        "audio_tokens": audio,
        "image_tokens": images,
    }
    if rng.random() < 0.5:
        details["text_tokens"] = prompt - audio - images
    more = {"reasoning_tokens": part(rng, answer - spoken), "audio_tokens": spoken, "rejected_prediction_tokens": 0}
    return {**totals(prompt, answer), "prompt_tokens_details": details, "completion_tokens_details": more}


def anthropic(rng: random.Random, prompt: int, answer: int) -> Json:
    read = part(rng, prompt)
    written = part(rng, prompt - read)
    lasting = part(rng, written)
    found: Json = {
        "input_tokens": prompt - read - written,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": answer,
        "service_tier": "standard",
    }
    if rng.random() < 0.7:
        by_lifetime = {"ephemeral_5m_input_tokens": written - lasting, "ephemeral_1h_input_tokens": lasting}
        found["cache_creation"] = by_lifetime
    return found


def gemini(rng: random.Random, prompt: int, answer: int) -> Json:
    audio = part(rng, prompt)
    images = part(rng, prompt - audio)
    thoughts, drawn = part(rng, answer), 0
    drawn = part(rng, answer - thoughts)
    read_audio = part(rng, audio)
    read = read_audio + part(rng, prompt - audio - images)
    found: Json = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": answer - thoughts,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": prompt + answer,
        "promptTokensDetails": modalities(AUDIO=audio, IMAGE=images, TEXT=prompt - audio - images),
        "candidatesTokensDetails": modalities(IMAGE=drawn, TEXT=answer - thoughts - drawn),
    }
    if read:
        found["cachedContentTokenCount"] = read
        found["cacheTokensDetails"] = modalities(AUDIO=read_audio, TEXT=read - read_audio)
    return found


def modalities(**counts: int) -> list[Json]:
    return [{"modality": name, "tokenCount": tokens} for name, tokens in counts.items()]


def deepseek(rng: random.Random, prompt: int, answer: int) -> Json:
    read = part(rng, prompt)
    found = totals(prompt, answer) | {"prompt_cache_hit_tokens": read, "prompt_cache_miss_tokens": prompt - read}
    if rng.random() < 0.5:
        found |= {"prompt_tokens_details": {"cached_tokens": read}}
    return found | {"completion_tokens_details": {"reasoning_tokens": part(rng, answer)}}


def xai(rng: random.Random, prompt: int, answer: int) -> Json:
    """Reasoning is beside the completion, and only in the total; cached tokens are in `text_tokens`, too."""
    read, images, thoughts = part(rng, prompt), part(rng, prompt), part(rng, answer)
    details = {"cached_tokens": read, "image_tokens": images, "text_tokens": prompt - images, "audio_tokens": 0}
    found = totals(prompt, answer) | {"completion_tokens": answer - thoughts, "prompt_tokens_details": details}
    return found | {"completion_tokens_details": {"reasoning_tokens": thoughts, "audio_tokens": 0}}


def hosted_vllm(rng: random.Random, prompt: int, answer: int) -> Json:
    details = rng.choice((None, {"cached_tokens": part(rng, prompt)}))
    return totals(prompt, answer) | {"prompt_tokens_details": details}


def totals(prompt: int, answer: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def cases() -> Iterator[tuple[str, str, Json]]:
    """Provider, model and usage object."""
    rng = random.Random(35)
    makers = {"openai": openai, "anthropic": anthropic, "gemini": gemini}
    makers |= {"deepseek": deepseek, "xai": xai, "hosted_vllm": hosted_vllm}
    models = {name: models_of(name) or ["m"] for name in PROVIDERS}
    for i in range(N):
        provider = PROVIDERS[i % len(PROVIDERS)]
        longest = rng.choice((40, 4000, 100_000, 400_000))
        prompt = rng.choice((rng.randint(1, longest), 128_000, 200_000, 272_000))
        yield provider, rng.choice(models[provider]), makers[provider](rng, prompt, rng.randint(0, 20_000))


def reference_usage(litellm: Any, provider: str, said: Json) -> Any:
    """litellm's own reading of a provider's usage object."""
    if provider == "anthropic":
        return litellm.AnthropicConfig().calculate_usage(usage_object=said, reasoning_content=None)
    if provider == "gemini":
        return litellm.VertexGeminiConfig.calculate_usage({"usageMetadata": said})
    return litellm.Usage(**said)


def reference_usd(litellm: Any, provider: str, model: str, usage: Any) -> float:
    own = {}
    if provider == "hosted_vllm":
        prices = {"input_cost_per_token": 4e-7, "output_cost_per_token": 1.1e-6, "cache_read_input_token_cost": 5e-8}
        own = {"custom_cost_per_token": prices}
    answer = litellm.ModelResponse(model=model, usage=usage)
    return float(litellm.completion_cost(answer, model=model, custom_llm_provider=provider, **own))


def price_at(provider: str, model: str) -> Price:
    keys: Json = VLLM if provider == "hosted_vllm" else {"price": "auto"}
    return ExpertConfig.model_validate({"engine": "litellm", "model": model, **keys}).chat_price


def whole(said: Mapping[str, Any]) -> Usage:
    """The usage of a whole answer on the API that has such objects."""
    if "input_tokens" in said:
        facts = read_answer(
            json.dumps({"type": "message", "content": [], "usage": said}).encode(), messages_answer.as_chat
        )
    else:
        choice = {"message": {"content": "x"}, "finish_reason": "stop"}
        facts = read_answer(json.dumps({"choices": [choice], "usage": said}).encode())
    assert facts is not None
    return facts.usage


def streamed(said: Mapping[str, Any]) -> Usage:
    """The usage of a stream on that API. Anthropic's begins with that of the prompt."""
    if "input_tokens" in said:
        first = {
            "type": "message_start",
            "message": {"usage": {**said, "output_tokens": min(1, said["output_tokens"])}},
        }
        late = {name: value for name, value in said.items() if name != "cache_creation"}
        last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": late}
        events, reader = [first, last, {"type": "message_stop"}], StreamReader(as_chat=messages_answer.as_chat)
    else:
        begun = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}
        events, reader = [begun, {"choices": [], "usage": said}], StreamReader()
    for event in events:
        reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    usage = reader.usage(0)
    assert not usage.is_estimated
    return usage


@pytest.mark.filterwarnings("ignore")  # of how litellm is written
def test_costs_are_those_of_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each usage object as the provider sends it and as litellm passes it on, whole and streamed."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the table that we read, not a newer one
    litellm = pytest.importorskip("litellm", reason="litellm is not installed (pip install '.[providers]')")
    seen: set[str] = set()
    for provider, model, said in cases():
        usage = reference_usage(litellm, provider, said)
        true, price = reference_usd(litellm, provider, model, usage), price_at(provider, model)
        passed_on = json.loads(usage.model_dump_json(exclude_none=True))
        native = [usage_of(said)] if provider == "gemini" else [whole(said), streamed(said)]
        for found in (*native, whole(passed_on), streamed(passed_on)):
            assert cost(found, price) == pytest.approx(true, rel=1e-12, abs=0), (provider, model, said, found)
            seen |= found.kinds.keys()
    assert seen >= {"cache_read", "cache_read_audio", "cache_write", "cache_write_1h", "audio_in", "image_in"}
    assert seen >= {"reasoning", "audio_out", "image_out"}


def test_clients_of_other_apis_are_told_what_was_cached() -> None:
    """Anthropic's input leaves it out, OpenAI's has it; each is read back as it was."""
    details = {"cached_tokens": 60, "cache_write_tokens": 30}
    said = {**totals(100, 9), "prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": 4}}
    answer = {"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": said}
    chat: Any = SimpleNamespace(native=None, body={}, model="m")
    message = messages_answer.MessagesAnswer(chat, "dec-1", "req-1").whole(answer)["usage"]
    assert (message["input_tokens"], message["cache_read_input_tokens"]) == (10, 60)
    assert message["cache_creation_input_tokens"] == 30
    response = responses_answer.ResponsesAnswer(chat, "dec-1").whole(answer)["usage"]
    assert (response["input_tokens"], response["input_tokens_details"]["cached_tokens"]) == (100, 60)
    assert usage_of(response) == usage_of(said)
    assert usage_of(message) == Usage(
        prompt_tokens=100, completion_tokens=9, kinds={"cache_read": 60, "cache_write": 30}
    )


def test_a_sum_of_calls_is_told_with_what_was_cached() -> None:
    calls = [Usage(prompt_tokens=10, completion_tokens=2, kinds={"cache_read": 7, "reasoning": 1})] * 2
    told = chat_usage(Usage.total(calls))
    assert told["prompt_tokens_details"] == {"cached_tokens": 14}
    assert usage_of(told) == Usage.total(calls)


def test_a_row_without_kinds_and_one_of_a_later_coe_are_priced_as_text() -> None:
    price = Price({"input": 2.0, "output": 8.0, "cache_read": 1.0})
    old = Usage.model_validate_json('{"prompt_tokens":5,"completion_tokens":1,"is_estimated":false}')
    later = Usage(prompt_tokens=5, completion_tokens=1, kinds={"cache_of_the_future": 3})
    assert cost(old, price) == cost(later, price) == pytest.approx(18e-6)


def test_tiers_that_name_all_their_prices_do_not_take_those_of_lower_ones() -> None:
    tiers = [
        {"range": [0, 1000], "input_cost_per_token": 1e-6, "cache_read_input_token_cost": 1e-7},
        {"range": [1000, 5000], "input_cost_per_token": 2e-6},
        {"input_cost_per_token": 9e-6},
    ]
    prices = entry_prices({"output_cost_per_token": 5e-6, "tiered_pricing": tiers})
    price = ExpertConfig.model_validate({"engine": "litellm", "model": "m", **prices}).chat_price
    for prompt, micro_usd in ((1000, 900 + 100 * 0.1 + 5), (1001, 1001 * 2 + 5)):
        usage = Usage(prompt_tokens=prompt, completion_tokens=1, kinds={"cache_read": 100})
        assert cost(usage, price) == pytest.approx(micro_usd / 1e6)
