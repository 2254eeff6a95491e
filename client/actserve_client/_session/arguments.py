"""What callers give, checked and turned into what messages hold.

It knows the types of arguments, and no computation. What is refused is named, with its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from actserve import wire
from actserve.v1 import catalogue_pb2, tensor_pb2

from actserve_client._session.answers import Array
from actserve_client.errors import InvalidRequest

__all__ = [
    "as_array",
    "as_inputs",
    "check_callbacks",
    "check_iterables",
    "choice",
    "inputs_of",
    "integer",
    "is_blocks",
    "merge_parameters",
    "number",
    "parameter_value",
    "text",
]


def as_array(value: Any, name: str) -> Array:
    """An array of a type that can be computed with; anything else is refused by name."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        # PyTorch raises the others, for tensors of another device or with a gradient, and says what to do.
        raise InvalidRequest(f"{name} can't be made an array: {error}", field=name) from None
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidRequest(
            f"{name} is a masked array, and activations know no masks; give {name}.filled(…) or its .data", field=name
        )
    try:
        computable = wire.data_type_of(array.dtype) in wire.COMPUTABLE
    except KeyError:
        computable = False
    if not computable:
        raise InvalidRequest(
            f"{name} is an array of {array.dtype}, and must be of float16, bfloat16, float32 or float64; convert it with "
            ".astype",
            field=name,
        )
    return array


def check_callbacks(progress: Any, on_summary: Any) -> None:
    """Refuse what can't be called, by name."""
    for name, value in (("progress", progress), ("on_summary", on_summary)):
        if value is not None and not callable(value):
            raise InvalidRequest(f"{name} is {value!r}, and must be a function", field=name)


def is_blocks(value: Any) -> bool:
    """Whether an argument is an iterable of arrays rather than an array or something that becomes one."""
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__") or not hasattr(value, "__iter__"):
        return False
    return not isinstance(value, (list, tuple)) or (bool(value) and all(isinstance(item, np.ndarray) for item in value))


def check_iterables(x: Any, name: str, upstream: Any, *, asynchronous: bool = False) -> None:
    """Refuse what holds no arrays to take one after another; `name` is what x is called, `upstream` may be None."""
    for value, called in ((x, name), (() if upstream is None else upstream, "upstream")):
        scalar = isinstance(value, np.ndarray) and not value.ndim
        if scalar or not (hasattr(value, "__iter__") or (asynchronous and hasattr(value, "__aiter__"))):
            raise InvalidRequest(f"{called} is {value!r}, and must be an iterable of arrays", field=called)


def inputs_of(x: Any, upstream: Any) -> tuple[Array, ...]:
    """x, and the upstream gradient unless it is None, as arrays that go together."""
    return as_inputs(x) if upstream is None else as_inputs(x, upstream)


def as_inputs(*given: Any) -> tuple[Array, ...]:
    """x, and the upstream gradient where it is given too, as arrays that go together."""
    inputs = tuple(as_array(value, name) for value, name in zip(given, ("x", "upstream"), strict=False))
    _check_upstream(inputs)
    return inputs


def _check_upstream(inputs: tuple[Array, ...]) -> None:
    if len(inputs) == 2 and inputs[0].dtype.newbyteorder("=") != inputs[1].dtype.newbyteorder("="):
        raise InvalidRequest(
            f"upstream is {inputs[1].dtype} and x is {inputs[0].dtype}; they must be of one type", field="upstream"
        )


def merge_parameters(parameters: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The activation's parameters from `parameters={...}` and from keywords; a name in both is refused."""
    if not (parameters is None or isinstance(parameters, Mapping)):
        raise InvalidRequest(
            f"parameters is {parameters!r}, and must be a mapping of names to values", field="parameters"
        )
    for name in parameters or ():
        if not isinstance(name, str):
            raise InvalidRequest(
                f"parameters has the name {name!r}, and must have strings for names", field="parameters"
            )
    for name in keywords:
        if parameters and name in parameters:
            raise InvalidRequest(f"{name} is given twice, as a keyword and in parameters", field=name)
    return {**(parameters or {}), **keywords}


def parameter_value(name: str, value: Any) -> catalogue_pb2.ParameterValue:
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return catalogue_pb2.ParameterValue(tensor=_parameter_tensor(name, value))
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, (bool, np.bool_)):
        return catalogue_pb2.ParameterValue(flag=bool(value))
    if isinstance(value, (int, np.integer)) and -(1 << 63) <= value < 1 << 63:
        return catalogue_pb2.ParameterValue(integer=int(value))
    if isinstance(value, (int, float, np.floating)) or (
        isinstance(value, np.generic) and value.dtype.name == "bfloat16"
    ):
        return catalogue_pb2.ParameterValue(number=_exact_float(name, value))
    if isinstance(value, str):
        return catalogue_pb2.ParameterValue(text=text(value, name))
    raise InvalidRequest(f"{name} is {value!r}, and must be a number, a word or an array of numbers", field=name)


def _exact_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(f"{name} is too large for a number", field=name) from None


def _parameter_tensor(name: str, value: Any) -> tensor_pb2.TensorValue:
    """The value of each channel, without loss: float32 and what is shorter as float32, all else as float64."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidRequest(f"{name} is a list whose items differ in length", field=name) from None
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise InvalidRequest(f"{name} is an array of {array.dtype}, and must be one of numbers", field=name)
    narrow = array.dtype.kind != "i" and array.dtype.kind != "u" and array.dtype.itemsize <= 4
    wanted = np.dtype("<f4" if narrow else "<f8")
    sent = np.ascontiguousarray(array.astype(wanted)).reshape(array.shape)
    if array.dtype.kind in "iu" and any(int(v) != int(w) for v, w in zip(array.flat, sent.flat, strict=True)):
        raise InvalidRequest(
            f"{name} holds whole numbers that no float64 equals; make it an array of floats", field=name
        )
    if array.dtype.itemsize > 8 and not np.array_equal(sent.astype(array.dtype), array, equal_nan=True):
        raise InvalidRequest(f"{name} is an array of {array.dtype}; convert it with .astype(float)", field=name)
    return tensor_pb2.TensorValue(data_type=wire.data_type_of(wanted), shape=array.shape, data=sent.tobytes())


def choice(table: Mapping[Any, int], value: Any, name: str) -> Any:
    try:
        return table[value]
    except (KeyError, TypeError):
        allowed = ", ".join(repr(key) for key in table if key is not None)
        raise InvalidRequest(f"{name} is {value!r}, and must be one of {allowed}", field=name) from None


def integer(value: Any, name: str, bits: int = 32) -> int:
    """A whole number that can be sent."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidRequest(f"{name} is {value!r}, and must be an integer", field=name)
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise InvalidRequest(f"{name} is {value}, which is out of range", field=name)
    return int(value)


def number(value: Any, name: str) -> float:
    """A number that can be sent."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidRequest(f"{name} is {value!r}, and must be a number", field=name)
    return float(value)


def text(value: Any, name: str) -> str:
    """A string that can be sent."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {value!r}, and must be a string", field=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is {value!r}, which is no valid text", field=name) from None
    return value
