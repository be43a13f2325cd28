"""The commands in the blocks of the documentation work, in one composition that is started once; a comment in the
source of a page says of each other why it is not run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.documented_blocks import ROOT, blocks
from tests.waiting import DEADLINE_S

KEY = "a-key-of-the-documentation"
NAMES = {"TEAM": "acme"}
BLOCKS = tuple(blocks())
RUN = tuple(block for block in BLOCKS if block.runnable)


def test_every_exception_names_lines_of_its_block_and_a_reason() -> None:
    assert len(BLOCKS) > 30
    for block in BLOCKS:
        for beginning, reason in block.excepted.items():
            assert beginning == "all" or any(line.startswith(beginning) for line in block.lines), (block, beginning)
            assert len(reason) > 10
            for path in re.findall(r"tests/[\w/.]+", reason):
                assert (ROOT / path.rstrip(".")).exists(), (block.page, path)


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder and the address of the demo, with the files that pages speak of."""
    folder = tmp_path_factory.mktemp("documented")
    environment = {
        **os.environ,
        "COE_API_KEYS": KEY,
        "COE_API_KEY": KEY,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    for name in ("routes.test.yaml", "experts.yaml"):
        shutil.copy(ROOT / name, folder)
    for name in ("adapters", "experts"):
        shutil.copytree(ROOT / "examples" / "smollm2" / name, folder / "examples" / "smollm2" / name)
    process = subprocess.Popen(
        ["coe", "up", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = iter(process.stdout.readline, "")
        url = next(found[1] for line in lines if (found := re.match(r"API +(http://\S+)/v1", line)))
        yield folder, url
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def first_decision(url: str) -> str:
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return str(answer.headers["x-coe-decision-id"])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_blocks_run(composition: tuple[Path, str]) -> None:
    folder, url = composition
    environment = {
        **os.environ,
        "COE_API_KEY": KEY,
        "SECRET": KEY,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    decision = first_decision(url)
    names = {**NAMES, "DECISION_ID": decision, "dec-...": decision}
    failed: list[str] = []
    commands: dict[str, str] = {}
    for block in RUN:
        for line in block.runnable:
            command = re.sub(r"(?:http://)?(?:127\.0\.0\.1|localhost):8000", url, line.partition("  #")[0])
            for name, value in names.items():
                command = command.replace(name, value)
            if command.startswith("curl") and "authorization" not in command:  # this composition has a key
                command += f" -H 'authorization: Bearer {KEY}'"
            commands.setdefault(command, block.page)
    for command, page in commands.items():
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed.append(f"{page}: {command}\n{done.stdout[-400:]}{done.stderr[-400:]}")
    assert failed == []
