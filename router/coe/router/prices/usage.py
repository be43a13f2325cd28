"""Tokens of an answer by kind, read from the usage object of any provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from coe.router.types import Record

MAX_TOKENS = 2**31 - 1
"""Databases and Redis could not add up larger counts."""

READ = ("cache_read", "cache_read_audio")
WRITTEN = ("cache_write", "cache_write_1h", "cache_write_12h")
"""Cache writes by lifetime; `cache_write` has those of 5 and 30 minutes, and those without one."""

LIFETIMES = {"ephemeral_1h_input_tokens": "cache_write_1h", "ephemeral_12h_input_tokens": "cache_write_12h"}
SHORT_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_30m_input_tokens")


class Usage(Record):
    """Tokens of one answer.

    `kinds` has disjoint parts of both counts, by name: those that `router.cost.Rates` can price apart. All others are
    plain text. `is_estimated` is true when the expert did not report usage and events were counted.
    """

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    is_estimated: bool = False
    kinds: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    @classmethod
    def total(cls, usages: Collection[Usage]) -> Usage:
        """Return the sum, which is an estimate if a part is one."""
        return cls(
            prompt_tokens=sum(each.prompt_tokens for each in usages),
            completion_tokens=sum(each.completion_tokens for each in usages),
            is_estimated=any(each.is_estimated for each in usages),
            kinds=sum((Counter(each.kinds) for each in usages), Counter()),
        )

    def of(self, kinds: Iterable[str]) -> int:
        """Return the tokens of some kinds together."""
        return sum(self.kinds.get(kind, 0) for kind in kinds)


def usage_of(said: Mapping[str, Any]) -> Usage:
    """Read a provider's usage object; what is missing or no count is 0. It may be OpenAI's of chats or responses,
    Anthropic's, Gemini's, or OpenAI's as changed by DeepSeek, xAI, vLLM and litellm."""
    if "prompt_tokens" not in said:
        said = as_chat_usage(said)
    prompt, answer = count(said, "prompt_tokens"), count(said, "completion_tokens")
    total = said.get("total_tokens")
    # Gemini's and xAI's models leave what they think out of the completion, but not out of the total, and bill it.
    if isinstance(total, int) and prompt + answer < total <= MAX_TOKENS:
        answer = total - prompt
    if said.keys() <= TOTALS:
        return Usage(prompt_tokens=prompt, completion_tokens=answer)
    kinds = prompt_kinds(said, prompt) | answer_kinds(mapping(said, "completion_tokens_details"), answer)
    found = {kind: tokens for kind, tokens in kinds.items() if tokens}
    return Usage(prompt_tokens=prompt, completion_tokens=answer, kinds=found)


TOTALS = {"prompt_tokens", "completion_tokens", "total_tokens"}


def prompt_kinds(said: Mapping[str, Any], prompt: int) -> dict[str, int]:
    """Return disjoint parts of the prompt. A provider may count what was read from the cache once more by its medium. A
    medium is then charged for at most what the cache leaves of the prompt, as litellm does."""
    details = mapping(said, "prompt_tokens_details")
    hits = count(said, "cache_read_input_tokens") or count(said, "prompt_cache_hit_tokens")
    read = min(hits or count(details, "cached_tokens"), prompt)
    lifetimes = mapping(details, "cache_creation_token_details")
    lasting = {kind: count(lifetimes, name) for name, kind in LIFETIMES.items()}
    named = sum(lasting.values()) + sum(count(lifetimes, name) for name in SHORT_LIFETIMES)
    stated = count(said, "cache_creation_input_tokens") or count(details, "cache_write_tokens")
    written = min(max(stated or count(details, "cache_creation_tokens"), named), prompt - read)
    by_medium = mapping(details, "cached_tokens_details")
    read_audio = min(count(by_medium, "audio_tokens"), read)
    read_images = min(count(by_medium, "image_tokens"), read - read_audio)
    rest = prompt - read - written
    audio = min(max(count(details, "audio_tokens") - read_audio, 0), rest)
    images = min(max(count(details, "image_tokens") - read_images, 0), rest - audio)
    return {
        "cache_read": read - read_audio,
        "cache_read_audio": read_audio,
        "cache_write": max(written - sum(lasting.values()), 0),
        **lasting,
        "audio_in": audio,
        "image_in": images,
    }


def answer_kinds(details: Mapping[str, Any], answer: int) -> dict[str, int]:
    """Return disjoint parts of the answer."""
    kinds, left = {}, answer
    for kind, name in (("audio_out", "audio_tokens"), ("image_out", "image_tokens"), ("reasoning", "reasoning_tokens")):
        kinds[kind] = min(count(details, name), left)
        left -= kinds[kind]
    return kinds


def as_chat_usage(said: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the usage object of another API to that of a chat completion."""
    if "promptTokenCount" in said:
        return gemini_as_chat(said)
    prompt, answer = count(said, "input_tokens"), count(said, "output_tokens")
    more = mapping(said, "output_tokens_details")
    found: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "completion_tokens_details": more}
    if "input_tokens_details" in said or "total_tokens" in said:  # of a response
        return found | {"prompt_tokens_details": said.get("input_tokens_details")}
    read, written = (count(said, f"cache_{name}_input_tokens") for name in ("read", "creation"))
    details = {
        "cached_tokens": read,
        "cache_creation_tokens": written,
        "cache_creation_token_details": said.get("cache_creation"),
    }
    found["completion_tokens_details"] = {"reasoning_tokens": count(more, "thinking_tokens")}
    return found | {"prompt_tokens": prompt + read + written, "prompt_tokens_details": details}


def gemini_as_chat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Translate Gemini's `usageMetadata`, whose candidates are counted without the model's thoughts."""
    thoughts = count(said, "thoughtsTokenCount")
    read = by_modality(said, "cacheTokensDetails")
    return {
        "prompt_tokens": count(said, "promptTokenCount") + count(said, "toolUsePromptTokenCount"),
        "completion_tokens": count(said, "candidatesTokenCount") + thoughts,
        "prompt_tokens_details": by_modality(said, "promptTokensDetails")
        | {"cached_tokens": count(said, "cachedContentTokenCount"), "cached_tokens_details": read},
        "completion_tokens_details": by_modality(said, "candidatesTokensDetails") | {"reasoning_tokens": thoughts},
    }


def by_modality(said: Mapping[str, Any], name: str) -> dict[str, int]:
    """Return Gemini's list of counts by modality, under OpenAI's names."""
    found: Counter[str] = Counter()
    listed = said.get(name)
    for part in listed if isinstance(listed, list) else ():
        if isinstance(part, Mapping):
            found[f"{str(part.get('modality')).lower()}_tokens"] += count(part, "tokenCount")
    return dict(found)


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Build the usage object of a chat completion."""
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    found: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if read := usage.of(READ):
        found["prompt_tokens_details"] = {"cached_tokens": read}
    if reasoning := usage.kinds.get("reasoning"):
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return found


def mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS else 0
