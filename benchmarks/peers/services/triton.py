"""NVIDIA Triton by PyTriton, whose wheel brings the server: gRPC, and system shared memory; NumPy behind both."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any

import contest
import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm

BIGGEST = (1 << 31) - 1


def serve(ports: tuple[int, int, int], size: int, pipe: Any) -> None:
    """The server, in a process of its own, which starts others."""
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

    def infer(requests: Any) -> Any:
        return [[contest.sigmoid(request["x"])] for request in requests]

    http, grpc, metrics = ports
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http,
        grpc_address="127.0.0.1",
        grpc_port=grpc,
        metrics_port=metrics,
        allow_metrics=False,
    )
    # The default forbids shared memory.
    with Triton(config=config, security_config=TritonSecurityConfig(restricted_endpoints=[])) as server:
        server.bind(
            model_name="sigmoid",
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(size,))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(size,))],
            config=ModelConfig(batching=False),
        )
        server.run()
        pipe.send(grpc)
        signal.sigwait({signal.SIGTERM})


def main() -> None:
    x = contest.tensor()
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    # It is to be told to stop, as its own children would outlive one that is killed.
    ports = (contest.free_port(), contest.free_port(), contest.free_port())
    server = spawn.Process(target=serve, args=(ports, x.size, theirs))
    server.start()
    try:
        if not mine.poll(120):
            raise TimeoutError("the server did not come up")
        client = triton.InferenceServerClient(
            f"127.0.0.1:{mine.recv()}",
            channel_args=[("grpc.max_receive_message_length", BIGGEST), ("grpc.max_send_message_length", BIGGEST)],
        )
        contest.wait(lambda: bool(client.is_model_ready("sigmoid")))

        def over_grpc() -> Any:
            given = triton.InferInput("x", [x.size], "FP32")
            given.set_data_from_numpy(x)
            return client.infer("sigmoid", [given]).as_numpy("y")

        regions = []
        for name in ("x", "y"):
            region = shm.create_shared_memory_region(name, f"/bench-{ports[1]}-{name}", x.nbytes)
            client.register_system_shared_memory(name, f"/bench-{ports[1]}-{name}", x.nbytes)
            regions.append(region)

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
    finally:
        server.terminate()
        server.join(30)


if __name__ == "__main__":
    main()
