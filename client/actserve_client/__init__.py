"""The client of actserve: exact activation maths from a service, streamed in constant memory.

>>> from actserve_client import Client
>>> with Client("localhost:50051") as client:
...     y = client.forward("gelu", x)

`Client` blocks, `AsyncClient` awaits; `merge` puts neuron statistics, or penalties, together. Everything else that is public lives in
`actserve_client.errors`, `.options`, `.records`, `.network`, `.monitor`, `.watching`, `.torch`, `.keras` and `.testing`.
"""

from actserve.stats import LayerStats, NeuronStats

from actserve_client._session import Gradients, Regularization, merge
from actserve_client._summaries import Nonfinite, Summary
from actserve_client.aio import AsyncClient
from actserve_client.client import Client
from actserve_client.errors import (
    ActivationExists,
    ActserveError,
    DeadlineExceeded,
    InvalidRequest,
    LimitExceeded,
    PermissionDenied,
    ServerError,
    ServerUnavailable,
    Unauthenticated,
    UnknownActivation,
)
from actserve_client.monitor import AsyncMonitor, Monitor
from actserve_client.options import Retry, Tls
from actserve_client.records import Alert

__all__ = [
    "ActivationExists",
    "ActserveError",
    "Alert",
    "AsyncClient",
    "AsyncMonitor",
    "Client",
    "DeadlineExceeded",
    "Gradients",
    "InvalidRequest",
    "LayerStats",
    "LimitExceeded",
    "Monitor",
    "NeuronStats",
    "Nonfinite",
    "PermissionDenied",
    "Regularization",
    "Retry",
    "ServerError",
    "ServerUnavailable",
    "Summary",
    "Tls",
    "Unauthenticated",
    "UnknownActivation",
    "merge",
]
