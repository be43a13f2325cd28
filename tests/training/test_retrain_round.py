"""One round of `coe retrain`: the chat's router, then the pilot library, each with its own result or error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from coe.base.errors import ConfigError, RouterError
from coe.decision_log.database import Database
from coe.retrieval.training.pilot_refresh import PilotRefresh, RefreshRequest
from coe.router.types import Verdict
from coe.training import retrain_command
from coe.training.fit_inputs import RetrainRequest
from coe.training.retrain_command import one_round
from coe.training.retrain_lock import Leases, LockLostError
from tests.training.trained_folder import make_trained

REFRESHED = PilotRefresh(Verdict.PROMOTE, "promote: no worse on held-out queries", 1, 30, 6, {"gone": 2}, 0.5, 0.75)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_trained(tmp_path)
    Database(f"sqlite:///{tmp_path / 'data' / 'coe.db'}").close()
    return tmp_path


def with_section(folder: Path) -> None:
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    (folder / "experts.yaml").write_text(
        yaml.safe_dump(values | {"retrieval": {"encoder": {"kind": "hashing"}, "pilots": "pilots"}})
    )


def run(folder: Path, *, as_json: bool = True) -> None:
    data = folder / "data"
    url = f"sqlite:///{data / 'coe.db'}"
    request = RetrainRequest(folder / "experts.yaml", data / "routers", data / "outcomes" / "probes", url)
    one_round(request, Leases(request.database_url), lambda _: None, as_json=as_json)


def instead(monkeypatch: pytest.MonkeyPatch, name: str, result: object) -> None:
    """Replaces a part of the round by its result, or by the error that it raises."""

    def part(*arguments: object, **options: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(retrain_command, name, part)


def test_without_a_section_nothing_is_said_of_retrieval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    found = json.loads(capsys.readouterr().out)
    assert "retrieval" not in found
    assert found["verdict"] == "decline"


def test_keys_that_count_for_nothing_teach_no_pilots(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_section(folder)
    values = yaml.safe_load((folder / "experts.yaml").read_text())
    weights = {"key_weights": {"acme/none": 0, "acme/half": 0.5}}
    (folder / "experts.yaml").write_text(yaml.safe_dump(values | {"feedback": weights}))
    unheard: list[object] = []

    def export(url: str, since: float, keys: object, folder: Path) -> Counter[str]:
        unheard.append(keys)
        return Counter()

    def refresh(request: RefreshRequest, **options: object) -> PilotRefresh:
        request.export(folder)
        return REFRESHED

    monkeypatch.setattr(retrain_command, "export_stores", export)
    monkeypatch.setattr(retrain_command, "refresh_pilots", refresh)
    run(folder)
    assert unheard == [{"acme/none"}]


def test_both_results_are_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_section(folder)
    instead(monkeypatch, "refresh_pilots", REFRESHED)
    run(folder)
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "decline"
    assert found["retrieval"] == {
        "verdict": "promote",
        "reason": "promote: no worse on held-out queries",
        "is_promoted": False,
        "old": None,
        "new": None,
        "stores": 1,
        "learned_from": 30,
        "held_out": 6,
        "dropped": {"gone": 2},
        "ndcg_at_10": {"before": 0.5, "after": 0.75, "n": 6, "difference": None},
        "more_searches": None,
    }
    run(folder, as_json=False)
    text = capsys.readouterr().out
    for line in (
        "decline: changes nothing",
        "pilots: 30 queries with feedback in 1 vector stores to learn from, 6 held out to judge",
        "left out: 2 (gone)",
        "mean nDCG@10: 0.500 as it is served, 0.750 refreshed, n=6",
    ):
        assert line in text


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failure_is_raised_after_the_others_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with_section(folder)
    instead(monkeypatch, "refresh_pilots", RouterError("no such expert"))
    with pytest.raises(RouterError, match=r"^the pilot library stays as it is: no such expert$"):
        run(folder, as_json=as_json)
    assert "decline: changes nothing" in capsys.readouterr().out
    instead(monkeypatch, "run_retrain", RouterError("no live router"))
    with pytest.raises(RouterError, match=r"^no live router; the pilot library stays as it is: no such expert$"):
        run(folder, as_json=as_json)
    assert capsys.readouterr().out == ""
    instead(monkeypatch, "refresh_pilots", REFRESHED)
    with pytest.raises(RouterError, match=r"^no live router$"):
        run(folder, as_json=as_json)
    text = capsys.readouterr().out
    assert "no worse on held-out queries" in text
    assert not as_json or json.loads(text)["error"] == "no live router"


def test_a_lost_turn_ends_the_round(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_section(folder)
    instead(monkeypatch, "run_retrain", LockLostError("lease 1 has expired"))
    instead(monkeypatch, "refresh_pilots", AssertionError("another process holds the lease"))
    with pytest.raises(LockLostError):
        run(folder)


def test_a_wrong_file_is_said_before_anything_is_read(folder: Path) -> None:
    (folder / "experts.yaml").write_text("categories: 3")
    with pytest.raises(ConfigError, match="categories"):
        run(folder)


def test_the_library_is_refreshed_within_the_turn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_section(folder)
    open_leases: list[int] = []

    class Watched(Leases):
        @contextmanager
        def acquire(self) -> Iterator[Any]:
            with super().acquire() as lease:
                open_leases.append(lease.number)
                yield lease
                open_leases.pop()

    def refresh(request: object, **options: object) -> PilotRefresh:
        assert open_leases == [1]
        return REFRESHED

    monkeypatch.setattr(retrain_command, "refresh_pilots", refresh)
    monkeypatch.setattr(retrain_command, "Leases", Watched)
    data = folder / "data"
    request = RetrainRequest(
        folder / "experts.yaml", data / "routers", data / "outcomes" / "probes", f"sqlite:///{data / 'coe.db'}"
    )
    retrain_command.retrain_once(request, as_json=True)
    assert open_leases == []


def test_a_round_in_a_pipe_says_what_it_does_on_standard_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder / "data"
    request = RetrainRequest(
        folder / "experts.yaml", data / "routers", data / "outcomes", f"sqlite:///{data / 'coe.db'}"
    )
    retrain_command.retrain_once(request, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == "decline"
    lines = captured.err.splitlines()
    assert lines[0] == "reading the log, the feedback and the outcomes"
    assert any(line.startswith("encoded ") for line in lines)
    assert "comparing stage 1 with the live router's" in lines
