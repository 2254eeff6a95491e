"""MLServer over gRPC, raw tensors, with NumPy behind it. Its server unpacks tensors into lists of Python's numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import contest
import grpc
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceRequest, InferenceResponse

BIGGEST = (1 << 31) - 1


class Sigmoid(MLModel):  # type: ignore[misc]  # not installed where types are checked
    """What the server loads."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        outputs = [NumpyCodec.encode_output("y", contest.sigmoid(x))]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    port = contest.free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": contest.free_port(),
        "grpc_port": port,
        "grpc_max_message_length": BIGGEST,
        "metrics_port": contest.free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps({"name": "sigmoid", "implementation": "ml_server.Sigmoid"}))
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL), port


def main() -> None:
    x = contest.tensor()
    with tempfile.TemporaryDirectory(prefix="actserve-bench-") as folder:
        server, port = _started(Path(folder))
        options = [("grpc.max_receive_message_length", BIGGEST), ("grpc.max_send_message_length", BIGGEST)]
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
                stub = GRPCInferenceServiceStub(channel)

                def call() -> Any:
                    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[x.size])
                    request = pb.ModelInferRequest(
                        model_name="sigmoid", inputs=[given], raw_input_contents=[x.tobytes()]
                    )
                    answer = stub.ModelInfer(request)
                    if answer.raw_output_contents:
                        return np.frombuffer(answer.raw_output_contents[0], np.float32)
                    return np.array(answer.outputs[0].contents.fp32_contents, np.float32)

                def ready() -> bool:
                    try:
                        return bool(stub.ModelReady(pb.ModelReadyRequest(name="sigmoid"), timeout=5).ready)
                    except grpc.RpcError:
                        return False

                contest.wait(ready)
                contest.compete({"MLServer, gRPC": call}, x)
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


if __name__ == "__main__":
    main()
