"""Logs of other gateways, and what routing would have saved them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.errors import ConfigError, DataError
from coe.cli.command_line import run
from coe.eval.log.foreign_logs import Call, read_calls
from coe.eval.log.savings import mean_with_interval
from coe.router.config.composition import load_config
from coe.router.prices.usage import Usage
from tests.training.trained_folder import make_trained

ASKED = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "What is the capital of Peru?"}]
SPEND = {
    "request_id": "chatcmpl-1",
    "call_type": "acompletion",
    "spend": 0.002,
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "model": "openai/right",
    "model_group": "right",
    "startTime": "2026-11-01T10:00:00Z",
    "status": "success",
    "messages": {},
    "response": {},
    "proxy_server_request": {"model": "right", "messages": ASKED},
}
USAGE = Usage(prompt_tokens=20, completion_tokens=10)
EXPECTED = Call("right", ("What is the capital of Peru?",), USAGE, 0.002)


def written(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def calls_of(kind: str, *paths: Path) -> Sequence[Call]:
    return read_calls(kind, paths, Counter())


def test_litellms_rows_are_read_as_the_api_and_as_csv_have_them(tmp_path: Path) -> None:
    left_out: Counter[str] = Counter()
    failed, vector = SPEND | {"status": "failure"}, SPEND | {"call_type": "aembedding"}
    cached = SPEND | {"cache_hit": "True", "spend": 0.0}
    listed = tmp_path / "spend.json"
    listed.write_text(json.dumps({"data": [SPEND, failed, vector, cached, SPEND | {"proxy_server_request": {}}]}))
    assert read_calls("litellm", [listed], left_out) == [EXPECTED]
    assert left_out == {"failed": 1, "not a chat": 1, "answered from its cache": 1, "no text of the request": 1}
    table = tmp_path / "spend.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(SPEND))
        writer.writeheader()
        writer.writerow({name: json.dumps(v) if isinstance(v, dict) else v for name, v in SPEND.items()})
    assert calls_of("litellm", table) == [EXPECTED]


def test_a_log_without_texts_says_how_to_get_them(tmp_path: Path) -> None:
    path = written(tmp_path / "spend.jsonl", SPEND | {"proxy_server_request": {}})
    with pytest.raises(DataError, match=r"1 no text of the request.*store_prompts_in_spend_logs") as caught:
        calls_of("litellm", path)
    assert "Peru" not in str(caught.value)
    with pytest.raises(DataError, match=r"broken.jsonl: row 1"):
        calls_of("openai", written(tmp_path / "broken.jsonl", {"custom_id": "a", "body": "no object"}))
    with pytest.raises(ConfigError, match=r"unknown format 'lite'.*litellm"):
        calls_of("lite", path)


def test_a_batch_is_joined_with_its_requests(tmp_path: Path) -> None:
    body = {"model": "right", "messages": ASKED}
    sent = written(
        tmp_path / "in.jsonl", *({"custom_id": name, "url": "/v1/chat/completions", "body": body} for name in "ab")
    )
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 16}}
    answer = {"model": "right-2024-08-06", "usage": usage}
    done = {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": answer}, "error": None}
    broken = {"id": "c", "custom_id": "b", "response": {"status_code": 500, "body": {}}, "error": {"code": "x"}}
    got = written(tmp_path / "out.jsonl", done, broken)
    (call,) = calls_of("openai", sent, got)
    assert call == Call(
        "right-2024-08-06", EXPECTED.asks, USAGE.model_copy(update={"kinds": {"cache_read": 16}}), batch_id="a"
    )
    with pytest.raises(DataError, match="give the input file of the batch"):
        calls_of("openai", got)


def test_the_report_says_what_routing_would_have_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything went to `right`, which costs twice and is worse by 0.2 everywhere; one call in five to a stranger."""
    folder = make_trained(tmp_path)
    config = folder / "experts.yaml"
    values = yaml.safe_load(config.read_text())
    for name, price in (("left", 100.0), ("right", 200.0)):
        values["experts"][name] |= {"price": {"input": price, "output": price}}
    config.write_text(yaml.dump(values))
    load_config(config)
    rows = [SPEND | {"spend": 0.006, "model_group": "stranger" if i % 5 == 0 else "right"} for i in range(50)]
    log = written(tmp_path / "spend.jsonl", *rows)
    where = ["--config", str(config), "--data-dir", str(folder / "data"), "--out", str(tmp_path / "out")]
    assert run("eval log", [str(log), "--import", "litellm", *where]) == 0
    said = capsys.readouterr().out
    assert "saved an estimated $3.00 ($3.00 to $3.00) of the $6.00 that 1,000 calls cost" in said
    assert "Estimated: nothing was answered again." in said
    assert "20% of the calls went to models that the router has not measured" in said
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["total"]["gained"]["value"] == pytest.approx(0.2, abs=0.02)
    assert found["total"]["n_predicted"] == 40
    assert found["total"]["goes_to"] == {"left": 1.0}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What routing would have saved" in page
    assert "Peru" not in page + said
    values["experts"]["left"]["price"] |= {"cache_read": 10.0}
    config.write_text(yaml.dump(values))
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 20}}
    cached = written(tmp_path / "cached.jsonl", *(row | {"metadata": {"usage_object": usage}} for row in rows))
    assert run("eval log", [str(cached), "--import", "litellm", *where]) == 0
    assert "saved an estimated $4.80" in capsys.readouterr().out, "0.0012 of the 0.006 that a call cost"
    values["experts"]["left"] |= {"price_above": {19: {"cache_read": 20.0}}}
    config.write_text(yaml.dump(values))
    assert run("eval log", [str(cached), "--import", "litellm", *where]) == 0
    assert "saved an estimated $4.60" in capsys.readouterr().out, "the price of prompts as long as these"
    values["policies"] = {"default": {}, "worse": {"pins": dict.fromkeys(values["categories"], "right")}}
    config.write_text(yaml.dump(values))
    log = written(tmp_path / "cheap.jsonl", *(row | {"spend": 0.001} for row in rows))
    assert run("eval log", [str(log), "--import", "litellm", "--policy", "worse", *where]) == 0
    said = capsys.readouterr().out
    assert "would have cost an estimated $1.00 ($0." in said  # strangers answered for less
    assert ") more than the $1.00 that 1,000 calls cost" in said
    assert run("eval log", [str(log), "--import", "litellm", "--policy", "wose", *where]) == 1
    assert "unknown policy 'wose'; did you mean 'worse'?" in capsys.readouterr().err
    assert run("eval log", [str(log), "--import", "litellm", *where[:2], "--data-dir", str(tmp_path), *where[4:]]) == 1
    assert "there is no live router yet" in capsys.readouterr().err


def test_the_interval_holds_a_common_error() -> None:
    values, rng = np.full(100, 0.1), np.random.default_rng(0)
    exact, doubtful = (mean_with_interval(values, error, rng) for error in (0.0, 0.05))
    assert exact.interval.high - exact.interval.low < 1e-9
    assert doubtful.interval.high - doubtful.interval.low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
