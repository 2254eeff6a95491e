"""NVIDIA Triton with its Python backend: gRPC, and system shared memory; NumPy behind both, and ONNX Runtime behind the second.

The server comes from the wheel of PyTriton, whose own layer is not used: it adds a hop. The wheel has no other backend than Python's: ONNX
Runtime is called from there, at the cost of copies into and out of its process that Triton's own backend for it would not need.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import contest
import numpy as np
import onnx
import pytriton
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm

BIGGEST = (1 << 31) - 1
HOME = Path(pytriton.__file__).parent

MODEL = """
import sys

sys.path.append(PACKAGES)  # the server keeps PYTHONPATH to itself
import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
COMPUTE

    def execute(self, requests):
        found = [self.compute(backend.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]
        return [backend.InferenceResponse([backend.Tensor("y", y)]) for y in found]
"""

WITH_NUMPY = """
    def compute(self, x):
        out = np.negative(x)
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        return np.reciprocal(out, out=out)
"""

WITH_ONNX_RUNTIME = """
    def initialize(self, given):
        import onnxruntime

        graph = f"{given['model_repository']}/{given['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def compute(self, x):
        return self.session.run(None, {"x": x})[0]
"""

SETTINGS = """
backend: "python"
input [ { name: "x", data_type: TYPE_FP32, dims: [ -1 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""


def _graph() -> bytes:
    float32 = onnx.TensorProto.FLOAT
    given, found = (onnx.helper.make_tensor_value_info(name, float32, ["n"]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Sigmoid", ["x"], ["y"])], "sigmoid", [given], [found])
    opsets = [onnx.helper.make_opsetid("", 21)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def _write(model: Path, compute: str) -> None:
    (model / "1").mkdir(parents=True)
    written = MODEL.replace("COMPUTE", compute.strip("\n")).replace("PACKAGES", repr(str(HOME.parent)))
    (model / "1" / "model.py").write_text(written)
    (model / "config.pbtxt").write_text(SETTINGS)


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    _write(folder / "models" / "sigmoid", WITH_NUMPY)
    _write(folder / "models" / "onnx", WITH_ONNX_RUNTIME)
    (folder / "models" / "onnx" / "1" / "model.onnx").write_bytes(_graph())
    # The stub is of one version of Python, and belongs beside the backend.
    shutil.copytree(HOME / "tritonserver" / "backends", folder / "backends")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = HOME / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends" / "python")
    libraries = [os.environ.get("LD_LIBRARY_PATH", ""), str(HOME.parent / "nvidia_pytriton.libs")]
    port = contest.free_port()
    command = [
        str(HOME / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
    ]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PYTHONHOME": sys.base_prefix,
    }
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL), port


def _compete(client: Any, port: int) -> None:
    x = contest.tensor()

    def over_grpc() -> Any:
        given = triton.InferInput("x", [x.size], "FP32")
        given.set_data_from_numpy(x)
        return client.infer("sigmoid", [given]).as_numpy("y")

    regions = []
    for name in ("x", "y"):
        regions.append(shm.create_shared_memory_region(name, f"/bench-{port}-{name}", x.nbytes))
        client.register_system_shared_memory(name, f"/bench-{port}-{name}", x.nbytes)

    def over_shared_memory(model: str) -> Any:
        # As a caller has it: the array comes from elsewhere, and is copied into the region.
        shm.set_shared_memory_region(regions[0], [x])
        return within_shared_memory(model)

    def within_shared_memory(model: str) -> Any:
        given = triton.InferInput("x", [x.size], "FP32")
        given.set_shared_memory("x", x.nbytes)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("y", x.nbytes)
        client.infer(model, [given], outputs=[wanted])
        return shm.get_contents_as_numpy(regions[1], np.float32, [x.size])

    try:
        contenders = {
            "Triton, gRPC": over_grpc,
            "Triton, shared memory": lambda: over_shared_memory("sigmoid"),
            "Triton, shared memory, ONNX Runtime": lambda: over_shared_memory("onnx"),
            # What the one before has copied is still there.
            "Triton, arrays in shared memory, ONNX Runtime": lambda: within_shared_memory("onnx"),
        }
        contest.compete(contenders, x)
    finally:
        client.unregister_system_shared_memory()
        for region in regions:
            shm.destroy_shared_memory_region(region)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="actserve-bench-") as folder:
        server, port = _started(Path(folder))
        try:
            options = [("grpc.max_receive_message_length", BIGGEST), ("grpc.max_send_message_length", BIGGEST)]
            client = triton.InferenceServerClient(f"127.0.0.1:{port}", channel_args=options)

            def ready() -> bool:
                if server.poll() is not None:
                    raise RuntimeError(f"tritonserver ended with status {server.returncode}")
                try:
                    return all(client.is_model_ready(name) for name in ("sigmoid", "onnx"))
                except triton.InferenceServerException:
                    return False

            contest.wait(ready)
            _compete(client, port)
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


if __name__ == "__main__":
    main()
