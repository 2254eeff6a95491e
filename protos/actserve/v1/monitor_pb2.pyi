from actserve.v1 import compute_pb2 as _compute_pb2
from actserve.v1 import tensor_pb2 as _tensor_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MonitorFigure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MONITOR_FIGURE_UNSPECIFIED: _ClassVar[MonitorFigure]
    MONITOR_FIGURE_DEAD_FRACTION: _ClassVar[MonitorFigure]
    MONITOR_FIGURE_DORMANT_FRACTION: _ClassVar[MonitorFigure]
    MONITOR_FIGURE_SATURATED_FRACTION: _ClassVar[MonitorFigure]
    MONITOR_FIGURE_NAN_COUNT: _ClassVar[MonitorFigure]
MONITOR_FIGURE_UNSPECIFIED: MonitorFigure
MONITOR_FIGURE_DEAD_FRACTION: MonitorFigure
MONITOR_FIGURE_DORMANT_FRACTION: MonitorFigure
MONITOR_FIGURE_SATURATED_FRACTION: MonitorFigure
MONITOR_FIGURE_NAN_COUNT: MonitorFigure

class MonitorThresholds(_message.Message):
    __slots__ = ("dead_fraction", "dormant_fraction", "saturated_fraction", "nan_count", "every_samples")
    DEAD_FRACTION_FIELD_NUMBER: _ClassVar[int]
    DORMANT_FRACTION_FIELD_NUMBER: _ClassVar[int]
    SATURATED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    NAN_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVERY_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    dead_fraction: float
    dormant_fraction: float
    saturated_fraction: float
    nan_count: int
    every_samples: int
    def __init__(self, dead_fraction: _Optional[float] = ..., dormant_fraction: _Optional[float] = ..., saturated_fraction: _Optional[float] = ..., nan_count: _Optional[int] = ..., every_samples: _Optional[int] = ...) -> None: ...

class MonitorLayer(_message.Message):
    __slots__ = ("layer", "header", "thresholds", "snapshot_every_samples", "monitor", "state_bytes")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EVERY_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    layer: str
    header: _compute_pb2.JobHeader
    thresholds: MonitorThresholds
    snapshot_every_samples: int
    monitor: str
    state_bytes: int
    def __init__(self, layer: _Optional[str] = ..., header: _Optional[_Union[_compute_pb2.JobHeader, _Mapping]] = ..., thresholds: _Optional[_Union[MonitorThresholds, _Mapping]] = ..., snapshot_every_samples: _Optional[int] = ..., monitor: _Optional[str] = ..., state_bytes: _Optional[int] = ...) -> None: ...

class MonitorBatch(_message.Message):
    __slots__ = ("layer", "shape", "shared")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    layer: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    shared: _tensor_pb2.SharedMemory
    def __init__(self, layer: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., shared: _Optional[_Union[_tensor_pb2.SharedMemory, _Mapping]] = ...) -> None: ...

class MonitorBatches(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[MonitorBatch]
    def __init__(self, batches: _Optional[_Iterable[_Union[MonitorBatch, _Mapping]]] = ...) -> None: ...

class MonitorChunk(_message.Message):
    __slots__ = ("offset_bytes",)
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset_bytes: int
    def __init__(self, offset_bytes: _Optional[int] = ...) -> None: ...

class MonitorSnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MonitorRequest(_message.Message):
    __slots__ = ("number", "layer", "batch", "chunk", "snapshot", "batches", "data")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    number: int
    layer: MonitorLayer
    batch: MonitorBatch
    chunk: MonitorChunk
    snapshot: MonitorSnapshotRequest
    batches: MonitorBatches
    data: bytes
    def __init__(self, number: _Optional[int] = ..., layer: _Optional[_Union[MonitorLayer, _Mapping]] = ..., batch: _Optional[_Union[MonitorBatch, _Mapping]] = ..., chunk: _Optional[_Union[MonitorChunk, _Mapping]] = ..., snapshot: _Optional[_Union[MonitorSnapshotRequest, _Mapping]] = ..., batches: _Optional[_Union[MonitorBatches, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class MonitorState(_message.Message):
    __slots__ = ("layer", "state_bytes", "offset_bytes")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    layer: str
    state_bytes: int
    offset_bytes: int
    def __init__(self, layer: _Optional[str] = ..., state_bytes: _Optional[int] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class MonitorSnapshot(_message.Message):
    __slots__ = ("through",)
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    through: int
    def __init__(self, through: _Optional[int] = ...) -> None: ...

class MonitorAlert(_message.Message):
    __slots__ = ("layer", "figure", "value", "threshold", "sample_count")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    layer: str
    figure: MonitorFigure
    value: float
    threshold: float
    sample_count: int
    def __init__(self, layer: _Optional[str] = ..., figure: _Optional[_Union[MonitorFigure, str]] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., sample_count: _Optional[int] = ...) -> None: ...

class MonitorFailure(_message.Message):
    __slots__ = ("layer", "of_layer", "error")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    OF_LAYER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    layer: str
    of_layer: bool
    error: _status_pb2.Status
    def __init__(self, layer: _Optional[str] = ..., of_layer: bool = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class MonitorResponse(_message.Message):
    __slots__ = ("number", "state", "snapshot", "alert", "failure", "data")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: MonitorState
    snapshot: MonitorSnapshot
    alert: MonitorAlert
    failure: MonitorFailure
    data: bytes
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[MonitorState, _Mapping]] = ..., snapshot: _Optional[_Union[MonitorSnapshot, _Mapping]] = ..., alert: _Optional[_Union[MonitorAlert, _Mapping]] = ..., failure: _Optional[_Union[MonitorFailure, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
