"""`coe experts ls`, without a gateway that answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from coe.cli import options
from coe.cli.command_line import run


def test_it_lists_every_expert_with_its_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "GATEWAY_URL", "http://127.0.0.1:1/v1")
    file = tmp_path / "experts.yaml"
    experts = "{near: {engine: echo, model: small}, far: {engine: openai, url: http://h/v1, model: big}}"
    categories = "{a: one, b: two, general: rest}"
    router = "{encoder: {kind: hashing}, classifier: {kind: knn}}"
    file.write_text(f"categories: {categories}\nexperts: {experts}\nrouter: {router}\n")
    assert run("experts ls", ["--config", str(file), "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["near: echo, small", "far: openai, big"]
