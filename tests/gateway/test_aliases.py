"""Names of models that apps have built in, and what they mean here."""

from __future__ import annotations

import pytest

from base.errors import ConfigError
from tests.gateway.running import config_of, running

ALIASES = {"gpt-4o": "auto", "claude-*": "plain", "claude-opus*": "auto:wild", "*": "emerald"}
SECTIONS = {"aliases": ALIASES}


@pytest.mark.parametrize(
    ("model", "expert", "policy"),
    [
        ("gpt-4o", "ruby", "default"),
        ("claude-sonnet-4-5", "plain", None),
        ("claude-opus-4-1", None, "wild"),
        ("o3", "emerald", None),
        ("plain", "plain", None),
        ("auto", "ruby", "default"),
    ],
)
async def test_an_alias_means_what_the_file_says(model: str, expert: str | None, policy: str | None) -> None:
    async with running(sections=SECTIONS) as gateway:
        async with gateway.chat("red", model=model) as answer:
            assert answer.status == 200
        record = await gateway.record()
    assert answer.headers.get("x-coe-alias") == (None if model in ("auto", "plain") else model)
    assert record.requested_model == model
    assert record.served_expert == answer.headers["x-coe-expert"]
    assert record.decision is not None
    if expert is not None:
        assert record.served_expert == expert
    if policy is not None:
        assert record.decision.policy == policy


async def test_a_name_in_a_header_cannot_end_it() -> None:
    async with running(sections=SECTIONS) as gateway, gateway.chat("red", model="a b\r\nx: ü/1:2") as answer:
        assert answer.headers["x-coe-alias"] == "a%20b%0D%0Ax:%20%C3%BC/1:2"


async def test_models_lists_names_and_finds_patterns() -> None:
    async with running(sections={"aliases": {"gpt-4o": "auto", "claude-*": "plain"}}) as gateway:
        async with gateway.client.get(f"{gateway.gateway.url}/models") as answer:
            listed = {card["id"]: card["owned_by"] for card in (await answer.json())["data"]}
        async with gateway.client.get(f"{gateway.gateway.url}/models/claude-x/y") as answer:
            assert (answer.status, (await answer.json())["id"]) == (200, "claude-x/y")
        async with gateway.client.get(f"{gateway.gateway.url}/models/gpt-5") as answer:
            assert answer.status == 404
        async with gateway.chat(model="gpt-5") as answer:
            error = (await answer.json())["error"]
    assert listed["gpt-4o"] == "coe-alias"
    assert "claude-*" not in listed
    assert answer.status == 404
    assert "gpt-4o" in error["message"]


@pytest.mark.parametrize(
    ("alias", "target", "problem"),
    [
        ("gpt-4o", "rubi", "aliases.gpt-4o: unknown model 'rubi'"),
        ("gpt-4o", "auto:cheap", "aliases.gpt-4o: unknown model 'auto:cheap'"),
        ("gpt-4o", "*", "aliases.gpt-4o: unknown model '*'"),
        ("ruby", "auto", "aliases.ruby: is a name already"),
        ("auto", "ruby", "aliases.auto: is a name already"),
        ("a*b", "auto", "aliases"),
        ("", "auto", "aliases"),
    ],
)
def test_an_alias_that_cannot_hold_is_refused(alias: str, target: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem.replace("*", r"\*")):
        config_of(sections={"aliases": {alias: target}})
