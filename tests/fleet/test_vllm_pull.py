"""`coe experts pull`: real downloads from a small hub on loopback, and what is said where one fails."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coe.base.errors import ConfigError, EngineError
from coe.fleet.vllm.pull import SCRIPT, pull_models
from coe.router.config.composition import CoeConfig, parse_config
from tests.small_composition import composition_of
from tests.vllm_build import vllm_interpreter

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"s" * 2048,
    "pytorch_model.bin": b"b" * 4096,
    "original/consolidated.00.pth": b"p" * 4096,
    "tokenizer.json": b"{}",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def composition(python: str, **models: str) -> CoeConfig:
    experts = {name: {"engine": "vllm", "model": model} for name, model in models.items()}
    return parse_config(composition_of(experts, vllm={"python": python}))


def fake_python(folder: Path, body: str) -> str:
    """Return a program that stands for vLLM's interpreter, and notes the model of each call in `folder/calls`."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\necho "$2" >> "{folder}/calls"\n{body}\n')
    script.chmod(0o755)
    return str(script)


def test_each_model_is_downloaded_once_and_folders_are_only_looked_for(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "config.json").write_bytes(b"x" * 2**20)
    config = composition(fake_python(tmp_path, f'echo "{local}"'), a="maker/one", b="maker/one", c=str(local))
    lines = list(pull_models(config, tmp_path, dict(os.environ)))
    assert (tmp_path / "calls").read_text().splitlines() == ["maker/one"]
    assert lines == [f"maker/one (a, b): 0.0 GiB in {local}", f"{local} (c): 0.0 GiB in {local}"]


def test_one_that_fails_leaves_the_others_and_is_told_with_its_repair(tmp_path: Path) -> None:
    body = f'case "$2" in *gated) echo "GatedRepoError: 401"; exit 1;; *odd) exit 3;; esac; echo "{tmp_path}"'
    config = composition(fake_python(tmp_path, body), a="maker/gated", b="maker/odd", c="maker/good", d="./none")
    lines = []
    with pytest.raises(EngineError) as refused:
        lines.extend(pull_models(config, tmp_path, {}))
    gated, odd, none = str(refused.value).splitlines()
    assert "experts.a.model: 'maker/gated' was not downloaded: the model is gated" in gated
    assert "experts.b.model: 'maker/odd' was not downloaded: its download ended with 3" in odd
    assert none == f"experts.d.model: {tmp_path}/none has no config.json"
    assert (tmp_path / "calls").read_text().splitlines() == ["maker/gated", "maker/odd", "maker/good"]


def test_a_composition_without_engines_and_a_missing_interpreter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to download"):
        list(pull_models(parse_config(composition_of({"echo": {"engine": "echo", "model": "echo"}})), tmp_path, {}))
    with pytest.raises(ConfigError, match=r"vllm\.python: '/none/python' cannot be run \(No such file"):
        list(pull_models(composition("/none/python", a="maker/one"), tmp_path, {}))


def test_an_interpreter_without_the_hubs_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ModuleNotFoundError(\"No module named 'huggingface_hub'\")")
    config = composition(sys.executable, a="maker/one")
    with pytest.raises(EngineError, match="No module named 'huggingface_hub'"):
        list(pull_models(config, tmp_path, {"PYTHONPATH": str(tmp_path)}))


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that a download asks, with one repository."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "maker/one" not in path:
            self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/models/"):
            tree = [{"type": "file", "path": n, "rfilename": n, "size": len(c), "oid": "0"} for n, c in FILES.items()]
            whole = {"id": "maker/one", "sha": COMMIT, "siblings": tree, "tags": [], "private": False}
            self.answer(200, json.dumps(tree if "/tree/" in path else whole).encode(), {})
        else:
            content = FILES[path.partition(f"/resolve/{COMMIT}/")[2] or path.partition("/resolve/main/")[2]]
            etag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the output of tests quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_hubs_own_package_downloads_what_vllm_loads(hub: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    config = composition(vllm_interpreter(), a="maker/one", b="maker/none")
    lines = []
    with pytest.raises(EngineError, match="'maker/none' was not downloaded: the model is neither a folder nor"):
        lines.extend(pull_models(config, tmp_path, environment))
    folder = Path(lines[0].rpartition(" in ")[2])
    assert {each.name for each in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert SCRIPT.is_file()
