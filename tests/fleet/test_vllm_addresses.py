"""The file by which one command tells another where vLLM's experts answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coe.base.errors import DataError, EngineError
from coe.fleet.processes.process import ProcessState
from coe.fleet.vllm.addresses import (
    Desired,
    EngineRecord,
    claim_vllm,
    desire,
    read_vllm,
    renew_vllm,
    vllm_file,
    write_vllm,
)

FIRST, SECOND = "http://127.0.0.1:8101/v1", "http://127.0.0.1:8102/v1"


def engine_record(name: str, url: str, *experts: str, pid: int = 1) -> EngineRecord:
    return EngineRecord(
        name=f"vllm-{name}",
        experts=(name, *experts),
        url=url,
        state=ProcessState.READY,
        pid=pid,
        restarts=0,
        gpus="",
        log="log",
    )


def test_what_a_living_process_wrote_is_read(tmp_path: Path) -> None:
    lock = claim_vllm(tmp_path)
    write_vllm(tmp_path, [engine_record("coder", FIRST, "law"), engine_record("coder", SECOND, "law")])
    assert read_vllm(tmp_path).urls == {"coder": (FIRST, SECOND), "law": (FIRST, SECOND)}
    assert sorted(file.name for file in (tmp_path / "engines").iterdir()) == ["lock", "vllm.json"]
    lock.release()


def test_an_engine_that_others_want_stopped_stays_so_whatever_process_it_has(tmp_path: Path) -> None:
    lock = claim_vllm(tmp_path)
    engines = [engine_record("coder", FIRST), engine_record("maths", SECOND)]
    write_vllm(tmp_path, engines)
    desire(tmp_path, {"vllm-coder"}, Desired.STOPPED)
    renew_vllm(tmp_path, [engine_record("coder", FIRST, pid=2), engines[1]])
    assert [each.desired for each in read_vllm(tmp_path).engines] == [Desired.STOPPED, Desired.AWAKE]
    desire(tmp_path, {"vllm-coder"}, Desired.AWAKE)
    assert {each.desired for each in read_vllm(tmp_path).engines} == {Desired.AWAKE}
    lock.release()


def test_nothing_is_read_when_there_is_no_file(tmp_path: Path) -> None:
    assert read_vllm(tmp_path).urls == {}


def test_an_engine_keeps_the_expert_that_it_loaded_later_until_it_starts_again(tmp_path: Path) -> None:
    lock = claim_vllm(tmp_path)
    write_vllm(tmp_path, [engine_record("coder", FIRST, "added"), engine_record("law", SECOND)])
    renew_vllm(tmp_path, [engine_record("coder", FIRST), engine_record("law", SECOND, pid=2)])
    assert read_vllm(tmp_path).urls == {"coder": (FIRST,), "added": (FIRST,), "law": (SECOND,)}
    renew_vllm(tmp_path, [engine_record("coder", FIRST, pid=3), engine_record("law", SECOND, pid=2)])
    assert "added" not in read_vllm(tmp_path).urls
    lock.release()


def test_the_file_of_a_dead_process_counts_for_nothing_though_another_has_its_id(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from coe.fleet.vllm.addresses import claim_vllm, write_vllm\n"
        "from tests.fleet.test_vllm_addresses import FIRST, engine_record\n"
        "lock = claim_vllm(pathlib.Path(sys.argv[1]))\n"
        "write_vllm(pathlib.Path(sys.argv[1]), [engine_record('coder', FIRST)])\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    file = vllm_file(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": os.getpid()}))  # as a restarted container has it
    assert read_vllm(tmp_path).urls == {}
    claim_vllm(tmp_path).release()


def test_one_process_at_a_time_runs_the_engines_of_a_folder(tmp_path: Path) -> None:
    lock = claim_vllm(tmp_path)
    with pytest.raises(EngineError, match=rf"process {os.getpid()}, another coe, runs the engines"):
        claim_vllm(tmp_path)
    lock.release()
    claim_vllm(tmp_path).release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("")
    with pytest.raises(EngineError, match=r"engines cannot hold the addresses of engines \(File exists\)"):
        claim_vllm(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"engines": {}}'])
def test_a_damaged_file_is_named_and_replaced_when_an_engine_changes(tmp_path: Path, text: str) -> None:
    vllm_file(tmp_path).parent.mkdir()
    vllm_file(tmp_path).write_text(text)
    with pytest.raises(DataError, match=r"vllm\.json is damaged"):
        read_vllm(tmp_path)
    renew_vllm(tmp_path, [engine_record("coder", FIRST)])
    assert FIRST in vllm_file(tmp_path).read_text()
