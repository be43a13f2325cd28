"""The Grafana dashboard and the alerts against /metrics of a running gateway, and the bounds of its labels."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from coe.decision_log.decision_record import TerminalState
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.served import end_gateway, start_gateway
from tests.gateway.telemetry.collector import collecting, environment
from tests.training.trained_folder import make_trained

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "coe.json").read_text())
(RULES,) = yaml.safe_load((DEPLOY / "prometheus" / "coe.yaml").read_text())["groups"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
EXPRESSIONS += [(rule["alert"], rule["expr"]) for rule in RULES["rules"]]
STATES = {state.value for state in TerminalState}
"""Values of labels that traffic may not have brought about."""

Labels = dict[str, list[dict[str, str]]]
"""The labels of all samples by metric."""


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """The selectors of a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from selectors(inner)


def groupings(expression: Any) -> Iterator[tuple[list[str], Any]]:
    """The labels of each `by`, and the expression below it."""
    if isinstance(expression, promql_parser.AggregateExpr) and expression.modifier is not None:
        yield expression.modifier.labels, expression.expr
    for name in ("expr", "lhs", "rhs"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from groupings(inner)
    for inner in getattr(expression, "args", None) or ():
        yield from groupings(inner)


def plain(query: str) -> str:
    """A query without Grafana's variable."""
    return query.replace("$__rate_interval", "5m")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    folder = make_trained(tmp_path_factory.mktemp("dashboard"))
    return asyncio.run(labels_after_traffic(folder))


async def labels_after_traffic(folder: Path) -> Labels:
    async with fault_upstream("unavailable") as upstream, collecting() as collector:
        values = yaml.safe_load((folder / "experts.yaml").read_text())
        values["experts"]["left"] = {"engine": "vllm", "url": upstream.url, "model": "left"}
        values |= {"judge": {"expert": "right", "share": 1.0}, "aliases": {"*": "auto"}}
        values["experts"]["sleeper"] = {"engine": "vllm", "url": upstream.url, "model": "sleeper", "gpu_gib": 9}
        values["residency"] = {"memory_gb": 9}
        values["retrieval"] = {"encoder": {"kind": "hashing"}, "experts": {}}
        (folder / "experts.yaml").write_text(yaml.safe_dump(values))
        start = partial(start_gateway, folder / "experts.yaml", folder / "data", **environment(collector.url))
        process, url = await asyncio.to_thread(start)
        try:
            async with aiohttp.ClientSession() as client:
                await traffic(client, url)
                async with client.get(f"{url.removesuffix('/v1')}/metrics") as answer:
                    text = await answer.text()
        finally:
            await asyncio.to_thread(end_gateway, process, signal.SIGTERM)
    found: Labels = {}
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        found.setdefault(sample.name, []).append(sample.labels)
    return found


async def traffic(client: aiohttp.ClientSession, url: str) -> None:
    for number in range(4):
        body = {"model": f"model-{number}", "messages": [{"role": "user", "content": f"say it {number} times"}]}
        headers = {"x-request-id": f"id-{number}", "authorization": f"Bearer key-{number}"}
        async with client.post(f"{url}/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            decision_id = answer.headers["x-coe-decision-id"]
        async with client.get(f"{url}/models/no-{number}"), client.get(f"{url}/chat/completions?{number}"):
            pass
    body = {"decision_id": decision_id, "kind": "thumb", "value": 1}
    async with client.post(f"{url}/feedback", json=body) as answer:
        assert answer.status == 202
    async with client.post(f"{url}/embeddings", json={"model": "auto", "input": "a text"}) as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize(("title", "query"), EXPRESSIONS)
def test_a_query_names_what_a_gateway_has(title: str, query: str, served: Labels) -> None:
    parsed = promql_parser.parse(plain(query))
    found = list(selectors(parsed))
    assert found, title
    for selector in found:
        assert selector.name in served, f"{title}: no metric {selector.name}"
        for matcher in selector.matchers.matchers:
            values = {labels.get(matcher.name) for labels in served[selector.name]}
            assert None not in values, f"{title}: {selector.name} has no label {matcher.name}"
            wanted = set(matcher.value.split("|"))
            assert wanted <= STATES | values, f"{title}: no {selector.name} has {matcher.name} {matcher.value}"
    for labels, inner in groupings(parsed):
        for selector in selectors(inner):
            for name in labels:
                assert all(name in each for each in served[selector.name]), f"{title}: {selector.name} lacks {name}"


def test_legends_name_labels_that_are_left(served: Labels) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            kept = {name for names, _ in groupings(promql_parser.parse(plain(target["expr"]))) for name in names}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, panel["title"]


def test_a_query_of_what_is_not_there_is_noticed(served: Labels) -> None:
    for wrong in ("sum by (experts) (rate(coe_tokens_total[5m]))", 'coe_tokens_total{type="in"}', "coe_token_total"):
        with pytest.raises(AssertionError):
            test_a_query_names_what_a_gateway_has("wrong", wrong, served)


def test_no_label_holds_what_a_client_sent(served: Labels) -> None:
    """Every request named another model, id and key, and asked for other paths."""
    for name, samples in served.items():
        assert len({tuple(sorted(labels.items())) for labels in samples}) == len(samples)
        assert not name.endswith("_created")
        values = {value for labels in samples for key, value in labels.items() if key != "le"}
        assert not [value for value in values if re.search(r"model-|id-|key-|no-\d", value)], name
    assert len(served["coe_requests_total"]) == 1
    assert len(served["coe_refusals_total"]) == 1
