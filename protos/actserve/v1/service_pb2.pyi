from actserve.v1 import catalogue_pb2 as _catalogue_pb2
from actserve.v1 import compute_pb2 as _compute_pb2
from actserve.v1 import monitor_pb2 as _monitor_pb2
from actserve.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MergeStatsRequest(_message.Message):
    __slots__ = ("state", "data")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    state: int
    data: bytes
    def __init__(self, state: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ListActivationsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListActivationsResponse(_message.Message):
    __slots__ = ("activations", "next_page_token")
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    activations: _containers.RepeatedCompositeFieldContainer[_catalogue_pb2.Activation]
    next_page_token: str
    def __init__(self, activations: _Optional[_Iterable[_Union[_catalogue_pb2.Activation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetActivationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetActivationResponse(_message.Message):
    __slots__ = ("activation",)
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    activation: _catalogue_pb2.Activation
    def __init__(self, activation: _Optional[_Union[_catalogue_pb2.Activation, _Mapping]] = ...) -> None: ...

class CreateActivationRequest(_message.Message):
    __slots__ = ("name", "formula", "parameters", "description", "derivative_formula", "replace", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_FORMULA_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    formula: str
    parameters: _containers.RepeatedCompositeFieldContainer[_catalogue_pb2.Parameter]
    description: str
    derivative_formula: str
    replace: bool
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., formula: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[_catalogue_pb2.Parameter, _Mapping]]] = ..., description: _Optional[str] = ..., derivative_formula: _Optional[str] = ..., replace: bool = ..., validate_only: bool = ...) -> None: ...

class CreateActivationResponse(_message.Message):
    __slots__ = ("activation",)
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    activation: _catalogue_pb2.Activation
    def __init__(self, activation: _Optional[_Union[_catalogue_pb2.Activation, _Mapping]] = ...) -> None: ...

class DeleteActivationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteActivationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server",)
    SERVER_FIELD_NUMBER: _ClassVar[int]
    server: ServerInfo
    def __init__(self, server: _Optional[_Union[ServerInfo, _Mapping]] = ...) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "data_types", "modes", "max_request_bytes", "max_chunk_bytes", "max_tensor_bytes", "max_slice_bytes", "max_lead_bytes", "max_dimensions", "max_concurrency", "regularizers", "instance", "worker", "allows_create", "max_activations", "max_formula_length")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPES_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TENSOR_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SLICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_LEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    REGULARIZERS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ALLOWS_CREATE_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_FORMULA_LENGTH_FIELD_NUMBER: _ClassVar[int]
    version: str
    data_types: _containers.RepeatedScalarFieldContainer[_tensor_pb2.DataType]
    modes: _containers.RepeatedScalarFieldContainer[_compute_pb2.Mode]
    max_request_bytes: int
    max_chunk_bytes: int
    max_tensor_bytes: int
    max_slice_bytes: int
    max_lead_bytes: int
    max_dimensions: int
    max_concurrency: int
    regularizers: _containers.RepeatedScalarFieldContainer[_compute_pb2.Regularizer]
    instance: str
    worker: int
    allows_create: bool
    max_activations: int
    max_formula_length: int
    def __init__(self, version: _Optional[str] = ..., data_types: _Optional[_Iterable[_Union[_tensor_pb2.DataType, str]]] = ..., modes: _Optional[_Iterable[_Union[_compute_pb2.Mode, str]]] = ..., max_request_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ..., max_tensor_bytes: _Optional[int] = ..., max_slice_bytes: _Optional[int] = ..., max_lead_bytes: _Optional[int] = ..., max_dimensions: _Optional[int] = ..., max_concurrency: _Optional[int] = ..., regularizers: _Optional[_Iterable[_Union[_compute_pb2.Regularizer, str]]] = ..., instance: _Optional[str] = ..., worker: _Optional[int] = ..., allows_create: bool = ..., max_activations: _Optional[int] = ..., max_formula_length: _Optional[int] = ...) -> None: ...
