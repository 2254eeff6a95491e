"""ONNX's own backend tests of its activation operators, with the client as the backend."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from actserve_client import Client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx import helper
    from onnx.backend.test.case import node

OPERATORS = [
    "Abs",
    "Atan",
    "Celu",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "Mish",
    "PRelu",
    "Relu",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Softsign",
    "SwiGLU",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
]


def _cases() -> list[Any]:
    """Every case of the operators on tensors of floats; a case that is written out in other operators says no more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in OPERATORS:
            importlib.import_module(f"{node.__name__}.{operator.lower()}")
    cases = []
    for case in node._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS and not case.name.endswith("_expanded"):
            inputs, _ = case.data_sets[0]
            if all(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in inputs):
                cases.append(pytest.param(case, id=case.name))
    return cases


@pytest.mark.parametrize("case", _cases())
def test_node(case: Any, client: Client) -> None:
    (operator,) = case.model.graph.node
    keywords = {attribute.name: helper.get_attribute_value(attribute) for attribute in operator.attribute}
    for inputs, (expected,) in case.data_sets:
        result = _forward(client, operator.op_type, list(inputs), dict(keywords))
        assert result.dtype == expected.dtype
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, case.rtol, case.atol)


def _forward(client: Client, name: str, inputs: list[Any], keywords: dict[str, Any]) -> Any:
    if keywords.pop("approximate", b"none") == b"tanh":
        name = "gelu_tanh"
    if name == "SwiGLU":  # of two tensors, which ours takes as the halves of one
        inputs = [np.concatenate(inputs, axis=-1)]
    if name == "PRelu":  # whose slopes may differ from element to element
        x, slope = inputs
        slopes = np.broadcast_to(slope, x.shape).reshape(-1)
        return client.forward(name, x.reshape(-1), preset="onnx", slope=slopes, channel_axis=0).reshape(x.shape)
    (x,) = inputs
    return client.forward(name, x, preset="onnx", **keywords)
