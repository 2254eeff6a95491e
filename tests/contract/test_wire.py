"""Arrays as bytes, and the framing by hand: equal to the generated code in what is written, and in what is read."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from actserve import wire
from actserve.v1 import compute_pb2, tensor_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

ONNX = {"FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BOOL": 9, "FLOAT16": 10}
ONNX |= {"DOUBLE": 11, "UINT32": 12, "UINT64": 13, "COMPLEX64": 14, "COMPLEX128": 15, "BFLOAT16": 16}


def test_data_types_are_onnx_integers() -> None:
    assert {name.removeprefix("DATA_TYPE_"): value for name, value in tensor_pb2.DataType.items() if value} == ONNX


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.binary(max_size=300))
def test_framed_bytes_are_those_of_the_generated_code(job: int, tensor: int, offset: int, data: bytes) -> None:
    chunk = compute_pb2.ResultChunk(tensor=tensor, offset_bytes=offset)
    whole = compute_pb2.ComputeResponse(job=job, chunk=chunk, data=data)
    framed = wire.frame(compute_pb2.ComputeResponse(job=job, chunk=chunk), memoryview(data))
    assert framed == whole.SerializeToString()
    message, payload = wire.unframe(compute_pb2.ComputeResponse, framed)
    assert bytes(payload) == data
    assert message == compute_pb2.ComputeResponse(job=job, chunk=chunk)
    assert len(framed) <= wire.framed_size(len(data))


def _generated(raw: bytes) -> compute_pb2.ComputeStreamRequest | None:
    try:
        return compute_pb2.ComputeStreamRequest.FromString(raw)
    except DecodeError:
        return None


VALID = compute_pb2.ComputeStreamRequest(job=3, chunk=compute_pb2.InputChunk(offset_bytes=8), data=b"abcdefgh")


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from([VALID.SerializeToString(), b"\xc2\x3e\x01a", b"\x08\x05", b"\xc2\xbe\x00\x01z"])).map(
            b"".join
        ),
        st.tuples(st.integers(0, 24), st.integers(0, 255)).map(
            lambda change: (
                VALID.SerializeToString()[: change[0]] + bytes([change[1]]) + VALID.SerializeToString()[change[0] + 1 :]
            )
        ),
    )
)
def test_any_bytes_are_read_as_the_generated_code_reads_them(raw: bytes) -> None:
    expected = _generated(raw)
    if expected is None:
        with pytest.raises(DecodeError):
            wire.unframe(compute_pb2.ComputeStreamRequest, raw)
        return
    message, data = wire.unframe(compute_pb2.ComputeStreamRequest, raw)
    message.data = bytes(data)
    assert message == expected


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(order + code) for code in ("f2", "f4", "f8") for order in "<>"]
DTYPES += [BFLOAT16, BFLOAT16.newbyteorder(">")]


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from([1, -1, 2]),
    st.booleans(),
    st.integers(1, 7),
)
def test_pieces_of_an_array_make_the_array(
    dtype: np.dtype[Any], shape: list[int], step: int, fortran: bool, piece: int
) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape, order="F" if fortran else "C")
    if array.ndim:
        array = array[::step]
    little = array.astype(array.dtype.newbyteorder("<")).tobytes()
    source, target = wire.ArraySource(array), np.zeros_like(array)
    sink = wire.ArraySink(target)
    size = piece * array.itemsize
    pieces = [bytes(source.read(at, min(at + size, array.nbytes))) for at in range(0, array.nbytes, size)]
    assert b"".join(pieces) == little
    for index, data in enumerate(pieces):
        sink.write(index * size, data)
    np.testing.assert_array_equal(target, array)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_type_travels_as_its_number(dtype: np.dtype[Any]) -> None:
    number = wire.data_type_of(dtype)
    assert number in wire.COMPUTABLE
    assert wire.dtype_of(number) == dtype.newbyteorder("<")
    assert ONNX[wire.data_type_name(number).removeprefix("DATA_TYPE_")] == number


def test_only_bfloat16_needs_ml_dtypes() -> None:
    """The light client does without; what can't be made then says what is missing."""
    code = """
import sys
sys.modules["ml_dtypes"] = None
import actserve_client
import numpy as np
from actserve import wire
from actserve.v1 import tensor_pb2
from actserve_client import InvalidRequest, _session
assert wire.dtype_of(tensor_pb2.DATA_TYPE_FLOAT16) == np.float16
try:
    _session.spec_of(tensor_pb2.TensorSpec(data_type=tensor_pb2.DATA_TYPE_BFLOAT16))
except InvalidRequest as error:
    assert "pip install ml_dtypes" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=3), st.integers(1, 9), st.sampled_from([2, 4, 8]))
def test_pieces_of_several_tensors_go_in_step(elements: list[int], step: int, itemsize: int) -> None:
    sizes = [count * itemsize for count in elements]
    reached = [0] * len(sizes)
    for edges in wire.in_step(sizes, step * itemsize, itemsize):
        for index, (start, stop) in enumerate(edges):
            assert start == reached[index] <= stop
            assert stop % itemsize == 0
            assert stop - start <= step * itemsize + itemsize
            reached[index] = stop
            # As far as the largest, to an element.
            assert abs(stop * max(sizes) - edges[sizes.index(max(sizes))][1] * sizes[index]) < itemsize * max(sizes)
    assert reached == sizes
