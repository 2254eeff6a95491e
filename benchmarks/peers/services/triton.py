"""NVIDIA Triton with its Python backend: gRPC, and system shared memory; NumPy behind both.

The server comes from the wheel of PyTriton, whose own layer is not used: it adds a hop.
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
    def execute(self, requests):
        return [self.answer(backend.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        out = np.negative(x)
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        return backend.InferenceResponse([backend.Tensor("y", np.reciprocal(out, out=out))])
"""

SETTINGS = """
backend: "python"
input [ { name: "x", data_type: TYPE_FP32, dims: [ -1 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    model = folder / "models" / "sigmoid"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text(MODEL.replace("PACKAGES", repr(str(HOME.parent))))
    (model / "config.pbtxt").write_text(SETTINGS)
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

    def over_shared_memory() -> Any:
        # As a caller has it: the array comes from elsewhere, and is copied into the region.
        shm.set_shared_memory_region(regions[0], [x])
        given = triton.InferInput("x", [x.size], "FP32")
        given.set_shared_memory("x", x.nbytes)
        wanted = triton.InferRequestedOutput("y")
        wanted.set_shared_memory("y", x.nbytes)
        client.infer("sigmoid", [given], outputs=[wanted])
        return shm.get_contents_as_numpy(regions[1], np.float32, [x.size])

    try:
        contest.compete({"Triton, gRPC": over_grpc, "Triton, shared memory": over_shared_memory}, x)
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
                    return bool(client.is_model_ready("sigmoid"))
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
