"""ONNX Runtime: one operator where ONNX has it, else a graph of its elementary operators, with inputs and outputs bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from peers import expressions
from peers.bound import Bound, empty

NAME = "ONNX Runtime"

# The operator and its attributes; those with a domain are the runtime's own.
_NATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("Identity", {}),
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "abs": ("Abs", {}),
    "sign": ("Sign", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_swish": ("HardSwish", {}),
    "thresholded_relu": ("ThresholdedRelu", {"alpha": 1.0}),
    "shrink": ("Shrink", {"lambd": 0.5, "bias": 0.0}),
    "hard_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.0}),
    "soft_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.5}),
    "elu": ("Elu", {"alpha": 1.0}),
    "celu": ("Celu", {"alpha": 1.0}),
    "selu": ("Selu", {}),
    "exponential": ("Exp", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
    "silu": ("com.microsoft.QuickGelu", {"alpha": 1.0}),
    "quick_gelu": ("com.microsoft.QuickGelu", {"alpha": 1.702}),
    "mish": ("Mish", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "tanh": ("Tanh", {}),
    "softsign": ("Softsign", {}),
    "sin": ("Sin", {}),
    "cos": ("Cos", {}),
    "erf": ("Erf", {}),
    "arctan": ("Atan", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "log_softmax": ("LogSoftmax", {"axis": 1}),
}
_WORDS = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "negative": "Neg",
    "absolute": "Abs",
    "maximum": "Max",
    "minimum": "Min",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "equal": "Equal",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_not": "Not",
    "where": "Where",
    **{word: word.capitalize() for word in ("sign", "sqrt", "exp", "log", "tanh", "sinh", "cosh", "sin", "cos", "erf")},
    "arctan": "Atan",
}
_OPSET = 21


def version() -> str:
    """The version that is timed."""
    return str(onnxruntime.__version__)


class _Graph:
    """A graph being written down, of tensors of one type."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: float) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, self.dtype), name))
        return name

    def add(self, word: str, *inputs: str, **attributes: Any) -> str:
        domain, _, operator = word.rpartition(".")
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def step(self, word: str, arguments: list[str]) -> str:
        match word:
            case "expm1":
                return self.add("Sub", self.add("Exp", *arguments), self.constant(1))
            case "log1p":
                return self.add("Log", self.add("Add", *arguments, self.constant(1)))
            case "erfc":
                return self.add("Sub", self.constant(1), self.add("Erf", *arguments))
        if word not in _WORDS:
            raise expressions.Unsupported(word)
        return self.add(_WORDS[word], *arguments)


def _write(graph: _Graph, record: Any, operation: str) -> bool:
    """Whether the operation could be written down."""
    native = _NATIVE.get(record.name)
    match record.name, operation:
        case _, "forward" if native is not None:
            graph.add(native[0], "x", **native[1])
        case "sigmoid", "derivative":
            y = graph.add("Sigmoid", "x")
            graph.add("Mul", y, graph.add("Sub", graph.constant(1), y))
        case "softplus", "derivative":
            graph.add("Sigmoid", "x")
        case "gelu", "derivative":
            share = graph.add("Erf", graph.add("Mul", "x", graph.constant(math.sqrt(0.5))))
            share = graph.add("Mul", graph.add("Add", share, graph.constant(1)), graph.constant(0.5))
            square = graph.add("Mul", graph.add("Mul", "x", "x"), graph.constant(-0.5))
            bell = graph.add("Mul", graph.add("Exp", square), graph.constant(1 / math.sqrt(2 * math.pi)))
            graph.add("Add", share, graph.add("Mul", "x", bell))
        case "silu", "derivative":
            y = graph.add("Sigmoid", "x")
            rest = graph.add("Mul", "x", graph.add("Sub", graph.constant(1), y))
            graph.add("Mul", y, graph.add("Add", rest, graph.constant(1)))
        case "softmax" | "log_softmax", "vjp":
            y = graph.add("Softmax", "x", axis=1)
            axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
            graph.constants.append(axes)
            if record.name == "softmax":
                total = graph.add("ReduceSum", graph.add("Mul", y, "g"), "axes")
                graph.add("Mul", y, graph.add("Sub", "g", total))
            else:
                graph.add("Sub", "g", graph.add("Mul", y, graph.add("ReduceSum", "g", "axes")))
        case _, "forward" | "derivative" if hasattr(record, "derivative"):
            try:
                root = expressions.expression(record, operation)
                expressions.emit(root, lambda leaf: "x" if leaf[0] == "x" else graph.constant(leaf[1]), graph.step)
            except expressions.Unsupported:
                return False
        case _:
            return False
    return bool(graph.nodes)


def bind(record: Any, operation: str, inputs: Sequence[np.ndarray[Any, Any]], threads: int) -> Bound | None:
    """See `peers`."""
    x = inputs[0]
    graph = _Graph(x.dtype)
    if not _write(graph, record, operation):
        return None
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    given = dict(zip(("x", "g"), inputs, strict=False))
    last = graph.nodes[-1].output[0]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "peer",
            [helper.make_tensor_value_info(name, kind, array.shape) for name, array in given.items()],
            [helper.make_tensor_value_info(last, kind, x.shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - it says in many ways that it has no kernel for a type
        return None
    out = empty(x.shape, x.dtype)
    binding = session.io_binding()
    for name, array in given.items():
        binding.bind_input(name, "cpu", 0, kind, array.shape, array.ctypes.data)
    binding.bind_output(last, "cpu", 0, kind, out.shape, out.ctypes.data)

    def run() -> None:
        session.run_with_iobinding(binding)

    def result() -> np.ndarray[Any, Any]:
        run()
        return out

    return Bound(run, result)
