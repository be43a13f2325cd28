"""What a test starts, by where it is: each has a marker, `unit`, `process` or `browser`, and each layer runs alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

UNIT_FOLDERS = (
    "base",
    "contracts",
    "decision_log",
    "eval",
    "examples",
    "fleet/coe/fleet/residency",
    "gateway/judging",
    "gateway/replay",
    "lint",
    "retrieval",
    "router",
    "training",
)
"""Folders of tests that start no process and listen on no port, but for those files."""

PROCESS_FILES = frozenset(
    f"{name}.py"
    for name in (
        "base/sandbox/test_runner",
        "base/test_json_text",
        "base/test_options",
        "base/test_private_folder",
        "contracts/test_encoders",
        "contracts/test_answer_kinds",
        "contracts/test_vllm_servers",
        "examples/offline/test_onnx_graph",
        "examples/offline/test_redis_server",
        "decision_log/test_consumer",
        "decision_log/test_doctor_commands",
        "decision_log/test_erase",
        "decision_log/test_history",
        "decision_log/test_kill_9",
        "decision_log/test_redis_kinds",
        "decision_log/test_erase_command",
        "decision_log/test_schema",
        "decision_log/test_sink",
        "decision_log/test_sink_limits",
        "decision_log/test_stream",
        "router/answers/test_code",
        "eval/report/test_page",
        "eval/test_collect",
        "eval/test_orphans",
        "eval/test_probe_set",
        "eval/test_ray_slow",
        "gateway/judging/test_judge",
        "retrieval/index/test_local",
        "retrieval/stores/test_document_reader",
        "router/answers/test_keys",
        "router/test_build",
        "training/lora/test_lora_parts",
        "training/lora/test_train_lora",
        "training/lora/test_train_on_vllm_slow",
        "training/test_onboarding",
        "training/test_retrain_lock",
        "training/test_schedule",
    )
)
LONG_FILES = frozenset(
    f"{name}.py"
    for name in (
        "base/test_extras",
        "decision_log/test_ledger",
        "eval/routing/test_routing_run",
        "retrieval/training/test_pilot_refresh",
        "retrieval/training/test_pilots_command",
        "training/test_category_mix",
        "training/test_crossfit",
        "eval/log/test_expert_worth",
        "training/test_few_examples",
        "training/test_one_key",
        "eval/test_probe_plan",
        "training/test_retrain",
        "training/test_retrain_experts",
        "training/test_train_command",
        "training/test_whole_decisions",
    )
)
"""Start nothing, and take seconds a test: most of them retrain."""

PROCESS_FIXTURES = frozenset({"postgres", "valkey"})
STARTS = frozenset({"os.fork", "os.posix_spawn", "socket.bind", "subprocess.Popen"})
ROOT = Path(__file__).parent


def layer_of(item: pytest.Item) -> str:
    """The marker of a test; `browser` is set by hand."""
    if item.get_closest_marker("browser"):
        return "browser"
    file = item.path.relative_to(ROOT).as_posix()
    callspec = getattr(item, "callspec", None)
    servers = {*getattr(item, "fixturenames", ()), callspec.params.get("database_url") if callspec else None}
    is_pure = file.startswith(tuple(f"{folder}/" for folder in UNIT_FOLDERS)) and file not in PROCESS_FILES | LONG_FILES
    is_pure = is_pure and not any(item.get_closest_marker(name) for name in ("slow", "torch"))
    return "unit" if is_pure and not servers & PROCESS_FIXTURES else "process"


def group_of(item: pytest.Item) -> str:
    """Tests that one worker of `--dist loadgroup` runs: those of a file, and all that start vLLM, which takes every
    core."""
    return "vllm" if "vllm_interpreter" in vars(getattr(item, "module", object)) else str(item.path)


class UnitGuard:
    """Fails a unit test that starts a process or listens, so that the lists above stay true."""

    def __init__(self) -> None:
        self._started: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: tuple[object, ...]) -> None:
        if event in STARTS:
            self._started.append(event)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> object:
        self._started.clear()
        result = yield
        if self._started and item.get_closest_marker("unit"):
            pytest.fail(f"a unit test caused {self._started[0]}: name its file in tests/layers.py", pytrace=False)
        return result
