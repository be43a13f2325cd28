"""The writer of ONNX graphs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from coe.router.encoders.onnx import open_session
from coe_offline.onnx_graph import Graph


def test_a_quantised_product_is_near_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(64, 16)).astype(np.float32), rng.normal(size=16).astype(np.float32)
    graph = Graph()
    output = graph.linear("states", weights, bias)
    session = open_session(graph.model({"states": ("float32", ("t", 64))}, {output: ("float32", ("t", 16))}))
    states = rng.normal(size=(5, 64)).astype(np.float32)
    exact = states @ weights + bias
    found = session.run(None, {"states": states})[0]
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_quantised_products_do_not_overflow() -> None:
    graph = Graph()
    output = graph.linear("states", np.ones((512, 8), np.float32))
    session = open_session(graph.model({"states": ("float32", ("t", 512))}, {output: ("float32", ("t", 8))}))
    found = session.run(None, {"states": np.ones((3, 512), np.float32)})[0]
    np.testing.assert_allclose(found, 512, rtol=1e-3)


def test_nothing_is_reported_to_the_library_s_maker(tmp_path) -> None:
    """onnxruntime keeps a device id and a queue of events in the home folder when it reports."""
    code = """
from coe_offline.onnx_graph import Graph
from coe.router.encoders.onnx import open_session
graph = Graph()
out = graph.add("Identity", "states")
open_session(graph.model({"states": ("float32", ("t", 4))}, {out: ("float32", ("t", 4))}))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
