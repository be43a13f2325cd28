"""Decisions of a real router, logged in a real database, made again by the command."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.errors import ConfigError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionKind, DecisionRecord, TerminalState
from coe.decision_log.replayed import NotReplayableError
from coe.gateway.chat.deciding import decision_inputs
from coe.gateway.commands.replay import replay
from coe.router.build import load_router
from coe.router.capabilities import explicit_decision
from coe.router.config.composition import load_config
from coe.router.pipeline import Router
from coe.router.reading.features import to_bytes
from coe.router.types import Query, QueryFacts
from coe.training.datasets.outcome_rows import write_outcomes
from coe.training.fit_inputs import TrainRequest, fit_configured
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EXPERTS = ("left", "right")
KEY = bytes(range(32))
CONFIG = {
    "categories": {"facts": "questions", "sql": "queries", "general": "the rest"},
    "experts": {name: {"engine": "echo", "model": name, "price": {"output": 1.0}} for name in EXPERTS},
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic", "inverse_l2": 10.0}, "alpha": 0.5},
    "policies": {"default": {}, "wild": {"exploration": 1.0}},
}


def outcomes(better: int) -> OutcomeTable:
    rows = [(category, i) for category in ("facts", "sql", "general") for i in range(20)]
    scores = np.full((len(rows), 2), 0.5, np.float32)
    scores[:, better] = 0.9
    texts = tuple(f"probe number {i} of {c}" for c, i in rows)
    return scored_table(scores, [c for c, _ in rows], EXPERTS, texts=texts)


class Data:
    """A data folder with two routers, of which the first has decided; each thinks another expert the better one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "experts.yaml"
        self.config.write_text(yaml.dump(CONFIG))
        (folder / "log.key").write_text(KEY.hex())
        self.versions = []
        for better in (0, 1):
            write_outcomes(outcomes(better), folder / f"outcomes-{better}")
            made = fit_configured(folder / "routers", TrainRequest(self.config, folder / f"outcomes-{better}"), now=NOW)
            self.versions.append(made.manifest.version)
        self.router = load_router(load_config(self.config), folder / "routers" / self.versions[0])

    def run(self, *arguments: object, **options: object) -> int:
        return replay(*arguments, config=self.config, data_dir=self.folder, **options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(fitted: Data, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setenv("COLUMNS", "200")
    fitted.config.write_text(yaml.dump(CONFIG))
    (fitted.folder / "coe.db").unlink(missing_ok=True)
    return fitted


def log(data: Data, *records: DecisionRecord) -> None:
    store = Database(f"sqlite:///{data.folder / 'coe.db'}")
    store.write_decisions(records)
    store.close()


def decided(router: Router, seq: int = 0, *, text: str = "select all rows", policy: str = "wild", **changes: object):
    query = Query(f"dec-{seq}", text, QueryFacts(prompt_chars=len(text)))
    alive = frozenset(changes.pop("alive", EXPERTS))
    vector = router.embed(text)
    decision = router.decide(query, rng=np.random.default_rng(seq), policy=policy, alive=alive, embedding=vector)
    fields = {
        "decision_id": f"dec-{seq}",
        "request_id": "r",
        "replica": "a",
        "seq": seq,
        "at": 1000.0 + seq,
        "requested_model": "auto",
        "state": TerminalState.ANSWERED,
        "decision": decision,
        "status": 200,
        "latency_ms": 5.0,
        "inputs": decision_inputs(router, policy, query, alive, to_bytes(vector), KEY),
        "embedding": to_bytes(vector),
    }
    return DecisionRecord.model_validate(fields | changes)


def test_decisions_come_out_the_same_to_the_last_bit(data, capsys):
    records = [decided(data.router, seq, text=f"question number {seq} about tables") for seq in range(20)]
    log(data, *records, decided(data.router, 20, alive=("right",), policy="default"))
    for seq in range(21):
        assert data.run(f"dec-{seq}") == 0, capsys.readouterr().out
        assert "the same to the last bit" in capsys.readouterr().out
    assert len({record.decision.expert for record in records}) == 2  # both were drawn


def test_a_decision_at_prices_by_category_comes_out_the_same(tmp_path, fitted, capsys):
    """`right` is better everywhere and its answers on `sql` are ten times as long, so a budget takes some from it."""
    data = copy(fitted)
    data.folder, data.config = tmp_path, tmp_path / "experts.yaml"
    learned = CONFIG["router"] | {"scorer": {"kind": "soft_map"}}
    data.config.write_text(
        yaml.dump(CONFIG | {"router": learned, "policies": {"default": {"budgets": {"cost_usd": 1e-4}}}})
    )
    (tmp_path / "log.key").write_text(KEY.hex())
    table = outcomes(1)
    tokens = np.array([[10, 1000 if name == "sql" else 100] for name in table.categories], np.float32)
    write_outcomes(replace(table, output_tokens=tokens), tmp_path / "outcomes")
    made = fit_configured(tmp_path / "routers", TrainRequest(data.config, tmp_path / "outcomes"), now=NOW)
    data.router = load_router(load_config(data.config), tmp_path / "routers" / made.manifest.version)
    assert data.router.policy("default").preference.tolls.shape == (3, 2)
    asked = [f"probe number {i} of {category}" for i in range(5) for category in ("facts", "sql")]
    records = [decided(data.router, seq, text=text, policy="default") for seq, text in enumerate(asked)]
    chosen = {(record.decision.category, record.decision.expert) for record in records}
    assert ("facts", "right") in chosen
    assert ("sql", "left") in chosen
    assert ("facts", "left") not in chosen
    log(data, *records)
    for seq in range(len(records)):
        assert data.run(f"dec-{seq}") == 0, capsys.readouterr().out
        assert "the same to the last bit" in capsys.readouterr().out


def test_what_differs_is_named(data, capsys):
    record = decided(data.router, policy="default")
    forged = record.decision.model_copy(update={"expert": "right", "confidence": 0.125})
    log(data, record.model_copy(update={"decision": forged}))
    assert data.run("dec-0") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dec-0: comes out otherwise in 2 fields")
    assert lines[1:] == [
        "  expert: logged right, now left",
        f"  confidence: logged 0.125, now {record.decision.confidence}",
    ]


def test_an_embedding_without_its_hash_is_named(data, capsys):
    record = decided(data.router, policy="default")
    inputs = record.inputs.model_copy(update={"features": "0" * 24})  # of another data folder, say
    log(data, record.model_copy(update={"inputs": inputs}))
    assert data.run("dec-0") == 0
    assert "the embedding does not have the logged hash" in capsys.readouterr().out


def test_a_changed_experts_yaml_is_named(data, capsys):
    log(data, decided(data.router, policy="default"))
    pins = {"default": {"pins": {"facts": "right", "sql": "right", "general": "right"}}}
    data.config.write_text(yaml.dump(CONFIG | {"policies": pins}))
    assert data.run("dec-0") == 1
    out = capsys.readouterr().out
    assert "expert: logged left, now right" in out
    assert "experts.yaml decides otherwise now than it did then for policy default" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": None}, "the log keeps no embedding of it"),
        ({"embedding": b"\x00\x3c" * 4}, "the logged embedding has 4 dimensions"),
        ({"embedding": b"\x00"}, "has 1 bytes"),
        ({"inputs": None, "kind": DecisionKind.SEARCH}, "a request of kind 'search': it chose a retrieval expert"),
        ({"inputs": None}, "a request of kind 'chat': the log has no inputs of it"),
        ({"decision": None, "error_code": "no_expert_alive"}, "rejected before an expert was chosen (no_expert_alive)"),
        ({"decision": explicit_decision(["left"], QueryFacts(), {})}, "the client named the expert 'left'"),
    ],
)
def test_what_is_missing_is_named(data, changes, message):
    log(data, decided(data.router).model_copy(update=changes))
    with pytest.raises(NotReplayableError) as caught:
        data.run("dec-0")
    assert message in str(caught.value)


def test_an_unknown_decision_is_named(data):
    log(data, decided(data.router))
    with pytest.raises(ConfigError, match="there is no decision 'dec-9'"):
        data.run("dec-9")
