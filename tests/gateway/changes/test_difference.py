"""Differences between two configurations, and those that a running gateway takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coe.gateway.changes.difference import differences, restart_problems
from coe.router.config.composition import CoeConfig, parse_config

URL = "http://127.0.0.1:1/v1"
BASE: dict[str, Any] = {
    "categories": {"sql": "queries", "general": "the rest"},
    "experts": {
        "remote": {"engine": "openai", "model": "m", "url": URL},
        "local": {"engine": "llamacpp", "model": "m.gguf"},
        "served": {"engine": "vllm", "model": "m"},
    },
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    "aliases": {"big": "auto"},
}


def changed(change: Callable[[dict[str, Any]], object]) -> CoeConfig:
    values = parse_config(BASE).model_dump(mode="json")
    change(values)
    return parse_config(values)


TAKEN: list[tuple[Callable[[dict[str, Any]], object], list[str]]] = [
    (lambda c: c["experts"].update(new={"engine": "echo", "model": "m"}), ["experts.new: added"]),
    (
        lambda c: c["experts"].update(new={"engine": "llamacpp", "model": "m.gguf", "adapter": "lora"}),
        ["experts.new: added"],
    ),
    (lambda c: c["experts"].pop("remote"), ["experts.remote: removed"]),
    (lambda c: c["experts"].pop("local"), ["experts.local: removed"]),
    (lambda c: c["experts"]["remote"].update(url=f"{URL}/b"), [f"experts.remote.url: {URL} -> {URL}/b"]),
    (lambda c: c["experts"]["local"].update(price={"input": 2}), ["experts.local.price.input: added"]),
    (
        lambda c: c["experts"]["local"].update(supports=["tools", "json"]),
        ["experts.local.supports: json -> json, tools"],
    ),
    (lambda c: c["policies"].update(new={}), ["policies.new: added"]),
    (lambda c: c["policies"]["default"]["pins"].update(sql="local"), ["policies.default.pins.sql: added"]),
    (
        lambda c: c["policies"]["default"]["budgets"].update(cost_usd=0.5),
        ["policies.default.budgets.cost_usd: none -> 0.5"],
    ),
    (lambda c: c["aliases"].update(gpt="auto"), ["aliases.gpt: added"]),
    (lambda c: c["aliases"].update(big=["served", "local"]), ["aliases.big: auto -> served, local"]),
    (lambda c: c.update(answers={"sql": {"kind": "text"}}), ["answers.sql: added"]),
    (lambda c: c["categories"].update(more="m"), ["categories.more: added"]),
    (lambda c: c["router"].update(alpha=0.2), ["router.alpha: 0.1 -> 0.2"]),
    (lambda c: c["feedback"].update(max_per_hour=5), ["feedback.max_per_hour: 1000 -> 5"]),
    (lambda c: c["gateway"].update(retries=2), ["gateway.retries: 1 -> 2"]),
    (
        lambda c: c["experts"].update(local={"engine": "openai", "model": "m.gguf", "url": URL}),
        ["experts.local.engine: llamacpp -> openai", f"experts.local.url: none -> {URL}"],
    ),
]

REFUSED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["router"]["encoder"].update(kind="lexical"), "router.encoder.kind"),
    (lambda c: c["gateway"].update(max_connections=9), "gateway.max_connections"),
    (lambda c: c["log"].update(privacy="none"), "log.privacy"),
    (lambda c: c.update(retrieval={"encoder": {"kind": "hashing"}, "experts": {}}), "retrieval"),
    (lambda c: c["llamacpp"].update(slots=2), "llamacpp.slots"),
    (lambda c: c["experts"]["local"].update(model="n.gguf"), "experts.local"),
    (lambda c: c["experts"].update(more={"engine": "llamacpp", "model": "m.gguf"}), "experts.more"),
    (lambda c: c["experts"].update(more={"engine": "llamacpp", "model": "n.gguf", "adapter": "a"}), "experts.more"),
    (lambda c: c["experts"].update(more={"engine": "vllm", "model": "m"}), "experts.more"),
]


@pytest.mark.parametrize(("change", "lines"), TAKEN, ids=[lines[0] for _, lines in TAKEN])
def test_a_running_gateway_takes(change: Callable[[dict[str, Any]], object], lines: list[str]) -> None:
    before, after = parse_config(BASE), changed(change)
    assert list(differences(before, after).values()) == lines
    assert restart_problems(before, after, ()) == []


@pytest.mark.parametrize(("change", "key"), REFUSED, ids=[f"{n}-{key}" for n, (_, key) in enumerate(REFUSED)])
def test_a_restart_is_needed_for(change: Callable[[dict[str, Any]], object], key: str) -> None:
    (problem,) = restart_problems(parse_config(BASE), changed(change), ())
    assert problem.startswith(f"{key}: ")
    assert "needs a restart of the gateway" in problem


def test_an_engine_that_others_have_started_is_there() -> None:
    after = changed(lambda c: c["experts"].update(more={"engine": "vllm", "model": "m"}))
    assert restart_problems(parse_config(BASE), after, {"more"}) == []


def test_an_expert_of_an_own_engine_comes_back() -> None:
    started = parse_config(BASE)
    assert restart_problems(started, started, ()) == []
    assert differences(started, started) == {}
