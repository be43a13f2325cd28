"""The file by which one command tells another where vLLM's experts answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.fleet.vllm_addresses import read_vllm_addresses, remove_vllm_addresses, vllm_file, write_vllm_addresses
from router.errors import DataError

URLS = {"coder": "http://127.0.0.1:8101/v1", "law": "http://127.0.0.1:8101/v1"}


def test_what_a_living_process_wrote_is_read(tmp_path: Path) -> None:
    write_vllm_addresses(tmp_path, URLS)
    assert read_vllm_addresses(tmp_path) == URLS
    assert [file.name for file in (tmp_path / "engines").iterdir()] == ["vllm.json"]


def test_nothing_is_read_when_there_is_no_file(tmp_path: Path) -> None:
    assert read_vllm_addresses(tmp_path) == {}
    write_vllm_addresses(tmp_path, URLS)
    remove_vllm_addresses(tmp_path)
    remove_vllm_addresses(tmp_path)
    assert read_vllm_addresses(tmp_path) == {}


def test_the_file_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_vllm_addresses(tmp_path, URLS)
    record = json.loads(vllm_file(tmp_path).read_text())
    vllm_file(tmp_path).write_text(json.dumps(record | {"pid": dead.pid}))
    assert read_vllm_addresses(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x", "urls": {}}', '{"pid": 1, "urls": []}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    vllm_file(tmp_path).parent.mkdir()
    vllm_file(tmp_path).write_text(text)
    with pytest.raises(DataError, match=r"vllm\.json is damaged"):
        read_vllm_addresses(tmp_path)
