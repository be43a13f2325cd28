"""Params of an expert and what a client sends: one model at several efforts is several experts."""

from __future__ import annotations

import pytest

from coe.base.errors import ConfigError
from coe.fleet.calls.backend import BackendRequest, with_params
from coe.router.config.composition import parse_config

pytestmark = pytest.mark.unit

ASKED = {"messages": [], "reasoning_effort": "high", "temperature": 1.0, "max_tokens": 9}


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, ASKED),
        ({"temperature": 0.2}, ASKED | {"temperature": 0.2}),
        ({"reasoning_effort": "low"}, ASKED | {"reasoning_effort": "low"}),
        # The client's own effort would undo this one by another name.
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            {
                "messages": [],
                "temperature": 1.0,
                "max_tokens": 9,
                "chat_template_kwargs": {"enable_thinking": False},
            },
        ),
    ],
)
def test_params_replace_what_a_client_sends(params: dict[str, object], sent: dict[str, object]) -> None:
    assert with_params(BackendRequest(ASKED), params) == sent


def test_a_policy_may_let_the_client_replace_them() -> None:
    params = {"reasoning_effort": "low", "top_p": 0.5}
    assert with_params(BackendRequest(ASKED, client_params=True), params) == {"top_p": 0.5, **ASKED}


def entry(**keys: object) -> dict[str, object]:
    expert = {"engine": "openai", "url": "http://127.0.0.1:9/v1", "model": "m", **keys}
    return {
        "categories": {"facts": "questions", "general": "the rest"},
        "experts": {"one": expert},
        "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    }


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"params": {"model": "x"}}, "params.model: set by other keys of the entry, or by each request"),
        ({"params": {"messages": "x"}}, "params.messages: set by"),
        ({"params": {"seed": 1}, "apis": ["responses"]}, "params: are fields of chat completions; allowed: params or"),
        ({"params_env": {"key": "SECRET"}}, "params_env: engine 'openai' takes none; allowed: litellm, plugin"),
        ({"engine": "echo", "url": None, "params": {"seed": 1}}, "params: engine 'echo' takes none; allowed: vllm, "),
    ],
)
def test_params_that_cannot_be_kept_are_refused(keys: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(entry(**keys))
    assert fault in str(caught.value)
    parse_config(entry(params={"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}))
