"""ONNX graphs written from arrays, for onnxruntime: the few messages of onnx.proto3 that a sentence encoder needs.

A product keeps its weights in 7 bits and quantises its input as it comes (DynamicQuantizeMatMul of onnxruntime), which
takes a fifth of the time of float32. 7 bits and not 8, because processors without VNNI add pairs of products in 16
bits, where 8 would overflow: so the same text has the same vector on both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coe.router.types import FloatArray

IR_VERSION, OPSET, CONTRIB_OPSET = 10, 20, 1
CONTRIB = "com.microsoft"
CONTRIB_OPERATORS = frozenset({"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MultiHeadAttention"})
"""The domain of onnxruntime's own operators, and those that are used."""

DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
"""TensorProto.DataType by numpy's name."""

WEIGHT_LEVELS = 63
"""Weights are whole numbers from -63 to 63: two products with a byte, 2 * 63 * 255, fit in 16 bits."""


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def blob(number: int, body: bytes | str) -> bytes:
    """A field that holds text, bytes or a message."""
    raw = body.encode() if isinstance(body, str) else body
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)


def tensor(name: str, values: NDArray[np.generic]) -> bytes:
    """TensorProto."""
    dims = b"".join(whole(1, size) for size in values.shape)
    raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return dims + whole(2, DATA_TYPES[values.dtype.name]) + blob(8, name) + blob(9, raw)


def stored_tensor(name: str, dtype: str, shape: Sequence[int], file: str, span: Sequence[int]) -> bytes:
    """TensorProto whose bytes begin and end at `span` of a file, which is mapped."""
    said = {"location": file, "offset": str(span[0]), "length": str(span[1] - span[0])}
    places = b"".join(blob(13, blob(1, key) + blob(2, value)) for key, value in said.items())
    return (
        b"".join(whole(1, size) for size in shape) + whole(2, DATA_TYPES[dtype]) + blob(8, name) + places + whole(14, 1)
    )


def attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    """AttributeProto: its type (20) is 1 for a float, 2 for an integer, 7 for integers."""
    if isinstance(value, float):
        return blob(1, name) + varint(2 << 3 | 5) + struct.pack("<f", value) + whole(20, 1)
    if isinstance(value, int):
        return blob(1, name) + whole(3, value) + whole(20, 2)
    return blob(1, name) + b"".join(whole(8, each) for each in value) + whole(20, 7)


def value_info(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """ValueInfoProto; a text in `shape` names a size that is known when the graph runs."""
    sizes = (whole(1, size) if isinstance(size, int) else blob(2, size) for size in shape)
    dims = b"".join(blob(1, size) for size in sizes)
    return blob(1, name) + blob(2, blob(1, whole(1, DATA_TYPES[dtype]) + blob(2, dims)))


@dataclass
class Graph:
    """A graph that grows by `add`; every step returns the name of its result."""

    nodes: list[bytes] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, **attributes: float | Sequence[int]) -> str:
        """The name of an operator's result. An empty input leaves out an optional one."""
        return self.write(operator, inputs, attributes)[0]

    def quantise(self, states: str) -> list[str]:
        """States in 8 bits, their scale and the level of zero: what DynamicQuantizeMatMul does to its input."""
        return self.write("DynamicQuantizeLinear", [states], {}, 3)

    def split(self, states: str, widths: Sequence[int]) -> list[str]:
        """Columns of states (t, sum of widths) in parts, each (t, its width)."""
        return self.write("Split", [states, self.constant(np.array(widths))], {"axis": 1}, len(widths))

    def cast(self, states: str, dtype: str) -> str:
        return self.add("Cast", states, to=DATA_TYPES[dtype])

    def write(
        self, operator: str, inputs: Sequence[str], attributes: Mapping[str, float | Sequence[int]], outputs: int = 1
    ) -> list[str]:
        """Adds a node; returns the names of its results."""
        names = [f"n{len(self.nodes)}.{i}" for i in range(outputs)]
        parts = [blob(1, name) for name in inputs] + [blob(2, name) for name in names] + [blob(4, operator)]
        parts += [blob(5, attribute(name, value)) for name, value in attributes.items()]
        parts.append(blob(7, CONTRIB if operator in CONTRIB_OPERATORS else ""))
        self.nodes.append(b"".join(parts))
        return names

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(tensor(name, values))
        return name

    def stored(self, dtype: str, shape: Sequence[int], file: str, span: Sequence[int]) -> str:
        """A constant whose bytes begin and end at `span` of a file in the folder that `open_session` is given."""
        name = f"c{len(self.constants)}"
        self.constants.append(stored_tensor(name, dtype, shape, file, span))
        return name

    def linear(self, states: str, weights: FloatArray, bias: FloatArray | None = None) -> str:
        """states (t, in) @ weights (in, out) + bias (out,)."""
        inputs = [*self.quantised(weights), ""]
        if bias is not None:
            inputs.append(self.constant(bias.astype(np.float32)))
        return self.add("DynamicQuantizeMatMul", states, *inputs)

    def linear_by_row(self, states: str, weights: FloatArray, bias: FloatArray) -> str:
        """As `linear`, but each row of `states` has a range of its own, so that its result depends on it alone."""
        most = self.add("ReduceMax", self.add("Abs", states), self.constant(np.array([1])), keepdims=1)
        scale = self.add("Div", self.add("Max", most, self.number(1e-12)), self.number(127))
        shifted = self.add("Add", self.add("Round", self.add("Div", states, scale)), self.number(128))
        levels, zero = self.cast(shifted, "uint8"), self.constant(np.array(128, dtype=np.uint8))
        whole_weights, weights_scale = self.quantised(weights)
        product = self.cast(self.add("MatMulInteger", levels, whole_weights, zero), "float32")
        scaled = self.add("Mul", self.add("Mul", product, scale), weights_scale)
        return self.add("Add", scaled, self.constant(bias.astype(np.float32)))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def quantised(self, weights: FloatArray) -> tuple[str, str]:
        """Weights (in, out) in 7 bits, and their scales (out,)."""
        scale = np.maximum(np.abs(weights).max(axis=0), np.float32(1e-12)) / np.float32(WEIGHT_LEVELS)
        return self.constant(np.rint(weights / scale).astype(np.int8)), self.constant(scale.astype(np.float32))

    def norm(self, states: str, gain: FloatArray, shift: FloatArray, epsilon: float) -> str:
        """Rows to mean 0 and variance 1, then scaled and shifted (Ba et al. 2016)."""
        return self.add(
            "LayerNormalization", states, self.constant(gain), self.constant(shift), axis=-1, epsilon=epsilon
        )

    def model(
        self,
        inputs: Mapping[str, tuple[str, Sequence[int | str]]],
        outputs: Mapping[str, tuple[str, Sequence[int | str]]],
    ) -> bytes:
        """ModelProto. `outputs` are results by their names in the graph."""
        graph = b"".join(blob(1, node) for node in self.nodes) + blob(2, "encoder")
        graph += b"".join(blob(5, each) for each in self.constants)
        graph += b"".join(blob(11, value_info(name, *kind)) for name, kind in inputs.items())
        graph += b"".join(blob(12, value_info(name, *kind)) for name, kind in outputs.items())
        opsets = blob(8, whole(2, OPSET)) + blob(8, blob(1, CONTRIB) + whole(2, CONTRIB_OPSET))
        return whole(1, IR_VERSION) + opsets + blob(7, graph)
