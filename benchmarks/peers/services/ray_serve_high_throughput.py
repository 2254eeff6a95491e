"""Ray Serve as its guide to high throughput sets it up: HAProxy in place of its own proxy, and past that, the replica's own port."""

from __future__ import annotations

import ray_serve

REPLICA = 40_000
"""The first port of those that replicas get, and there is one replica."""
SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(REPLICA),
}

if __name__ == "__main__":
    ray_serve.compete({"Ray Serve, HAProxy": ray_serve.PORT, "Ray Serve, replica": REPLICA}, SETTINGS)
