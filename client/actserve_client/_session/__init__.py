"""What both clients think, without any I/O: arguments to jobs, jobs to messages, messages to results.

`arguments` checks what callers give, `questions` makes headers of it; a `Job` (`jobs`) gives the requests of a computation over
arrays that lie in memory, and an `Assembly` takes the responses and writes them where they belong. `_blocks` and `_tensors` do
the same for iterables of arrays. The two clients only carry bytes between these and a channel, and know all of it by this name.
"""

from __future__ import annotations

from actserve_client._session.answers import Array, Gradients, Regularization
from actserve_client._session.arguments import (
    as_array,
    as_inputs,
    check_callbacks,
    check_iterables,
    inputs_of,
    integer,
    is_blocks,
    merge_parameters,
    number,
    text,
)
from actserve_client._session.assembly import Assembly, MakeOut, OnSummary, Progress, Room, incomplete, spec_of
from actserve_client._session.jobs import Job, gradients_job, map_job, penalty_answer, pieces_of, stats_answer
from actserve_client._session.merging import merge
from actserve_client._session.questions import (
    How,
    Question,
    derivative,
    forward,
    map_mode,
    neuron_stats,
    regularization,
    second_pass,
    two_passes,
)
from actserve_client._session.sizes import CHUNK_BYTES, KEPT_BYTES, UNARY_BYTES

__all__ = [
    "Array",
    "Assembly",
    "CHUNK_BYTES",
    "Gradients",
    "How",
    "Job",
    "KEPT_BYTES",
    "MakeOut",
    "OnSummary",
    "Progress",
    "Question",
    "Regularization",
    "Room",
    "UNARY_BYTES",
    "as_array",
    "as_inputs",
    "check_callbacks",
    "check_iterables",
    "derivative",
    "forward",
    "gradients_job",
    "incomplete",
    "inputs_of",
    "integer",
    "is_blocks",
    "map_job",
    "map_mode",
    "merge",
    "merge_parameters",
    "neuron_stats",
    "number",
    "penalty_answer",
    "pieces_of",
    "regularization",
    "second_pass",
    "spec_of",
    "stats_answer",
    "text",
    "two_passes",
]
