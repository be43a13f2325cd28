"""Embeddings as the log keeps them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.base.errors import DataError
from coe.router.reading.features import features_hash, features_of, from_bytes, to_bytes

UNIT = st.floats(-1, 1, width=32)


@given(arrays(np.float32, st.tuples(st.just(1), st.integers(1, 40)), elements=UNIT))
def test_what_was_rounded_survives_the_log_exactly(vector):
    kept, stored, *_ = features_of(vector)
    assert from_bytes(to_bytes(kept)).tobytes() == kept[0].tobytes()
    assert features_of(kept).vectors.tobytes() == kept.tobytes()
    assert np.abs(kept - vector).max() <= 2**-11
    assert to_bytes(kept) == to_bytes(vector) == stored


def test_the_bytes_are_half_precision_and_little_endian():
    assert to_bytes(np.array([1.0, -0.5], np.float32)) == b"\x00\x3c\x00\xb8"


def test_a_key_keeps_guesses_from_being_tested():
    ones, others = (to_bytes(np.full(2, value, np.float32)) for value in (1, 0))
    found = {features_hash(ones), features_hash(others), features_hash(ones, b"a" * 32), features_hash(ones, b"b" * 32)}
    assert len(found) == 4


@pytest.mark.parametrize(("data", "message"), [(b"\x00", "has 1 bytes"), (b"\x00\x7c", "not finite")])
def test_damaged_bytes_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        from_bytes(data)
