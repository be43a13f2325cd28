"""The encoder and the reranker's way of asking, on vLLM's CPU build: texts of any length get their vectors."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from coe.base.errors import BackendError
from coe.fleet.encoders.openai import Options, build
from coe.fleet.hosts.engine_plans import free_port
from tests.contracts.test_vllm_servers import wait_until_ready
from tests.vllm_build import ENVIRONMENT, vllm_interpreter, write_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, python, port = tmp_path_factory.mktemp("vllm"), vllm_interpreter(), free_port()
    model = write_base(python, folder / "base")
    command = [python, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", "m"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--runner", "pooling", "--dtype", "bfloat16"]
    command += ["--max-model-len", "64", "--enforce-eager"]
    log: Path = folder / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=out, stderr=out)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
                wait_until_ready(client, child, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.terminate()
            child.wait(60.0)


def test_a_long_text_is_cut_to_what_the_model_reads_and_costs_no_other(url: str) -> None:
    texts = [f"text number {number}" for number in range(12)] + ["word " * 500]
    options: dict[str, object] = {"url": url, "model": "m", "dim": 576, "batch_size": 4, "timeout_s": 120.0}
    with pytest.raises(BackendError, match="a text of 2500 characters") as refused:
        build(Options.model_validate(options)).encode(texts)
    assert refused.value.status == 400
    cutting = build(Options.model_validate({**options, "truncates": True}))
    found, alone = cutting.encode(texts), cutting.encode(texts[:3])
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
    assert (found[:3] * alone).sum(axis=1).min() > 0.99
