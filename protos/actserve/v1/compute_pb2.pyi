import datetime

from actserve.v1 import catalogue_pb2 as _catalogue_pb2
from actserve.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_FORWARD: _ClassVar[Mode]
    MODE_DERIVATIVE: _ClassVar[Mode]
    MODE_REGULARIZATION: _ClassVar[Mode]
    MODE_NEURON_STATS: _ClassVar[Mode]

class Jacobian(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JACOBIAN_UNSPECIFIED: _ClassVar[Jacobian]
    JACOBIAN_FULL: _ClassVar[Jacobian]
    JACOBIAN_DIAGONAL: _ClassVar[Jacobian]

class Regularizer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REGULARIZER_UNSPECIFIED: _ClassVar[Regularizer]
    REGULARIZER_L2: _ClassVar[Regularizer]
    REGULARIZER_L1: _ClassVar[Regularizer]
    REGULARIZER_L1L2: _ClassVar[Regularizer]
    REGULARIZER_KL_SPARSITY: _ClassVar[Regularizer]
    REGULARIZER_HOYER: _ClassVar[Regularizer]
    REGULARIZER_HOYER_SQUARE: _ClassVar[Regularizer]
    REGULARIZER_GROUP_LASSO: _ClassVar[Regularizer]
    REGULARIZER_ENTROPY: _ClassVar[Regularizer]
    REGULARIZER_LOG_STUDENT: _ClassVar[Regularizer]
    REGULARIZER_LP: _ClassVar[Regularizer]
    REGULARIZER_CONTRACTIVE: _ClassVar[Regularizer]
    REGULARIZER_Z_LOSS: _ClassVar[Regularizer]
    REGULARIZER_ORTHOGONAL: _ClassVar[Regularizer]
    REGULARIZER_TEMPORAL: _ClassVar[Regularizer]

class Reduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_UNSPECIFIED: _ClassVar[Reduction]
    REDUCTION_SUM: _ClassVar[Reduction]
    REDUCTION_BATCH_MEAN: _ClassVar[Reduction]
    REDUCTION_MEAN: _ClassVar[Reduction]

class GradientWrt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRADIENT_WRT_UNSPECIFIED: _ClassVar[GradientWrt]
    GRADIENT_WRT_ACTIVATION: _ClassVar[GradientWrt]
    GRADIENT_WRT_INPUT: _ClassVar[GradientWrt]

class FiredRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIRED_RULE_UNSPECIFIED: _ClassVar[FiredRule]
    FIRED_RULE_POSITIVE: _ClassVar[FiredRule]
    FIRED_RULE_NONZERO: _ClassVar[FiredRule]
    FIRED_RULE_ABOVE_EPS: _ClassVar[FiredRule]

class StatsInput(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATS_INPUT_UNSPECIFIED: _ClassVar[StatsInput]
    STATS_INPUT_PRE_ACTIVATION: _ClassVar[StatsInput]
    STATS_INPUT_POST_ACTIVATION: _ClassVar[StatsInput]

class StatsHistogram(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATS_HISTOGRAM_UNSPECIFIED: _ClassVar[StatsHistogram]
    STATS_HISTOGRAM_LAYER: _ClassVar[StatsHistogram]
    STATS_HISTOGRAM_NEURON: _ClassVar[StatsHistogram]

class PenaltyTarget(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PENALTY_TARGET_UNSPECIFIED: _ClassVar[PenaltyTarget]
    PENALTY_TARGET_OUTPUT: _ClassVar[PenaltyTarget]
    PENALTY_TARGET_INPUT: _ClassVar[PenaltyTarget]

class Accuracy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCURACY_UNSPECIFIED: _ClassVar[Accuracy]
    ACCURACY_EXACT: _ClassVar[Accuracy]
    ACCURACY_FAST: _ClassVar[Accuracy]

class Nonfinite(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONFINITE_UNSPECIFIED: _ClassVar[Nonfinite]
    NONFINITE_PROPAGATE: _ClassVar[Nonfinite]
    NONFINITE_REJECT: _ClassVar[Nonfinite]
MODE_UNSPECIFIED: Mode
MODE_FORWARD: Mode
MODE_DERIVATIVE: Mode
MODE_REGULARIZATION: Mode
MODE_NEURON_STATS: Mode
JACOBIAN_UNSPECIFIED: Jacobian
JACOBIAN_FULL: Jacobian
JACOBIAN_DIAGONAL: Jacobian
REGULARIZER_UNSPECIFIED: Regularizer
REGULARIZER_L2: Regularizer
REGULARIZER_L1: Regularizer
REGULARIZER_L1L2: Regularizer
REGULARIZER_KL_SPARSITY: Regularizer
REGULARIZER_HOYER: Regularizer
REGULARIZER_HOYER_SQUARE: Regularizer
REGULARIZER_GROUP_LASSO: Regularizer
REGULARIZER_ENTROPY: Regularizer
REGULARIZER_LOG_STUDENT: Regularizer
REGULARIZER_LP: Regularizer
REGULARIZER_CONTRACTIVE: Regularizer
REGULARIZER_Z_LOSS: Regularizer
REGULARIZER_ORTHOGONAL: Regularizer
REGULARIZER_TEMPORAL: Regularizer
REDUCTION_UNSPECIFIED: Reduction
REDUCTION_SUM: Reduction
REDUCTION_BATCH_MEAN: Reduction
REDUCTION_MEAN: Reduction
GRADIENT_WRT_UNSPECIFIED: GradientWrt
GRADIENT_WRT_ACTIVATION: GradientWrt
GRADIENT_WRT_INPUT: GradientWrt
FIRED_RULE_UNSPECIFIED: FiredRule
FIRED_RULE_POSITIVE: FiredRule
FIRED_RULE_NONZERO: FiredRule
FIRED_RULE_ABOVE_EPS: FiredRule
STATS_INPUT_UNSPECIFIED: StatsInput
STATS_INPUT_PRE_ACTIVATION: StatsInput
STATS_INPUT_POST_ACTIVATION: StatsInput
STATS_HISTOGRAM_UNSPECIFIED: StatsHistogram
STATS_HISTOGRAM_LAYER: StatsHistogram
STATS_HISTOGRAM_NEURON: StatsHistogram
PENALTY_TARGET_UNSPECIFIED: PenaltyTarget
PENALTY_TARGET_OUTPUT: PenaltyTarget
PENALTY_TARGET_INPUT: PenaltyTarget
ACCURACY_UNSPECIFIED: Accuracy
ACCURACY_EXACT: Accuracy
ACCURACY_FAST: Accuracy
NONFINITE_UNSPECIFIED: Nonfinite
NONFINITE_PROPAGATE: Nonfinite
NONFINITE_REJECT: Nonfinite

class DerivativeOptions(_message.Message):
    __slots__ = ("jacobian", "parameter_gradients")
    JACOBIAN_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    jacobian: Jacobian
    parameter_gradients: bool
    def __init__(self, jacobian: _Optional[_Union[Jacobian, str]] = ..., parameter_gradients: bool = ...) -> None: ...

class RegularizationOptions(_message.Message):
    __slots__ = ("regularizer", "strength", "reduction", "gradient", "gradient_wrt", "parameters", "of", "state")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _catalogue_pb2.ParameterValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_catalogue_pb2.ParameterValue, _Mapping]] = ...) -> None: ...
    REGULARIZER_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_WRT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    regularizer: Regularizer
    strength: float
    reduction: Reduction
    gradient: bool
    gradient_wrt: GradientWrt
    parameters: _containers.MessageMap[str, _catalogue_pb2.ParameterValue]
    of: PenaltyTarget
    state: bytes
    def __init__(self, regularizer: _Optional[_Union[Regularizer, str]] = ..., strength: _Optional[float] = ..., reduction: _Optional[_Union[Reduction, str]] = ..., gradient: bool = ..., gradient_wrt: _Optional[_Union[GradientWrt, str]] = ..., parameters: _Optional[_Mapping[str, _catalogue_pb2.ParameterValue]] = ..., of: _Optional[_Union[PenaltyTarget, str]] = ..., state: _Optional[bytes] = ...) -> None: ...

class NeuronStatsOptions(_message.Message):
    __slots__ = ("threshold", "neuron_axis", "neuron_axes", "fired", "eps", "zero_tolerance", "tau", "saturation_eps", "dead_after_samples", "input", "histogram", "sums", "first_sample")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NEURON_AXIS_FIELD_NUMBER: _ClassVar[int]
    NEURON_AXES_FIELD_NUMBER: _ClassVar[int]
    FIRED_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    ZERO_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    SATURATION_EPS_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    neuron_axis: int
    neuron_axes: _containers.RepeatedScalarFieldContainer[int]
    fired: FiredRule
    eps: float
    zero_tolerance: float
    tau: float
    saturation_eps: float
    dead_after_samples: int
    input: StatsInput
    histogram: StatsHistogram
    sums: bool
    first_sample: int
    def __init__(self, threshold: _Optional[float] = ..., neuron_axis: _Optional[int] = ..., neuron_axes: _Optional[_Iterable[int]] = ..., fired: _Optional[_Union[FiredRule, str]] = ..., eps: _Optional[float] = ..., zero_tolerance: _Optional[float] = ..., tau: _Optional[float] = ..., saturation_eps: _Optional[float] = ..., dead_after_samples: _Optional[int] = ..., input: _Optional[_Union[StatsInput, str]] = ..., histogram: _Optional[_Union[StatsHistogram, str]] = ..., sums: bool = ..., first_sample: _Optional[int] = ...) -> None: ...

class JobHeader(_message.Message):
    __slots__ = ("activation", "mode", "parameters", "inputs", "axis", "chunk_bytes", "open_ended", "accuracy", "preset", "derivative", "regularization", "neuron_stats", "whole_result", "nonfinite", "part", "result")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _catalogue_pb2.ParameterValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_catalogue_pb2.ParameterValue, _Mapping]] = ...) -> None: ...
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_ENDED_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_FIELD_NUMBER: _ClassVar[int]
    REGULARIZATION_FIELD_NUMBER: _ClassVar[int]
    NEURON_STATS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_RESULT_FIELD_NUMBER: _ClassVar[int]
    NONFINITE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    activation: str
    mode: Mode
    parameters: _containers.MessageMap[str, _catalogue_pb2.ParameterValue]
    inputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    axis: int
    chunk_bytes: int
    open_ended: bool
    accuracy: Accuracy
    preset: str
    derivative: DerivativeOptions
    regularization: RegularizationOptions
    neuron_stats: NeuronStatsOptions
    whole_result: bool
    nonfinite: Nonfinite
    part: Part
    result: _tensor_pb2.SharedMemory
    def __init__(self, activation: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., parameters: _Optional[_Mapping[str, _catalogue_pb2.ParameterValue]] = ..., inputs: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., axis: _Optional[int] = ..., chunk_bytes: _Optional[int] = ..., open_ended: bool = ..., accuracy: _Optional[_Union[Accuracy, str]] = ..., preset: _Optional[str] = ..., derivative: _Optional[_Union[DerivativeOptions, _Mapping]] = ..., regularization: _Optional[_Union[RegularizationOptions, _Mapping]] = ..., neuron_stats: _Optional[_Union[NeuronStatsOptions, _Mapping]] = ..., whole_result: bool = ..., nonfinite: _Optional[_Union[Nonfinite, str]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., result: _Optional[_Union[_tensor_pb2.SharedMemory, _Mapping]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("first_element", "elements", "bits")
    FIRST_ELEMENT_FIELD_NUMBER: _ClassVar[int]
    ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    first_element: int
    elements: int
    bits: str
    def __init__(self, first_element: _Optional[int] = ..., elements: _Optional[int] = ..., bits: _Optional[str] = ...) -> None: ...

class ComputeRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: JobHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[JobHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class InputChunk(_message.Message):
    __slots__ = ("input", "offset_bytes", "shared_bytes")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    input: int
    offset_bytes: int
    shared_bytes: int
    def __init__(self, input: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., shared_bytes: _Optional[int] = ...) -> None: ...

class InputEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ComputeStreamRequest(_message.Message):
    __slots__ = ("job", "header", "chunk", "end", "data")
    JOB_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    job: int
    header: JobHeader
    chunk: InputChunk
    end: InputEnd
    data: bytes
    def __init__(self, job: _Optional[int] = ..., header: _Optional[_Union[JobHeader, _Mapping]] = ..., chunk: _Optional[_Union[InputChunk, _Mapping]] = ..., end: _Optional[_Union[InputEnd, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ResultHeader(_message.Message):
    __slots__ = ("tensors", "activation", "unit_bytes", "bits")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    UNIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    activation: str
    unit_bytes: _containers.RepeatedScalarFieldContainer[int]
    bits: str
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., activation: _Optional[str] = ..., unit_bytes: _Optional[_Iterable[int]] = ..., bits: _Optional[str] = ...) -> None: ...

class ResultChunk(_message.Message):
    __slots__ = ("tensor", "offset_bytes", "input", "output", "shared_bytes")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    tensor: int
    offset_bytes: int
    input: NonfiniteCounts
    output: NonfiniteCounts
    shared_bytes: int
    def __init__(self, tensor: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., input: _Optional[_Union[NonfiniteCounts, _Mapping]] = ..., output: _Optional[_Union[NonfiniteCounts, _Mapping]] = ..., shared_bytes: _Optional[int] = ...) -> None: ...

class RegularizationResult(_message.Message):
    __slots__ = ("penalty", "state")
    PENALTY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    penalty: float
    state: bytes
    def __init__(self, penalty: _Optional[float] = ..., state: _Optional[bytes] = ...) -> None: ...

class NeuronStatsResult(_message.Message):
    __slots__ = ("dead_fraction", "dead_count", "neuron_count", "sample_count", "never_fired_count", "dormant_count", "nan_count")
    DEAD_FRACTION_FIELD_NUMBER: _ClassVar[int]
    DEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEURON_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIRED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DORMANT_COUNT_FIELD_NUMBER: _ClassVar[int]
    NAN_COUNT_FIELD_NUMBER: _ClassVar[int]
    dead_fraction: float
    dead_count: int
    neuron_count: int
    sample_count: int
    never_fired_count: int
    dormant_count: int
    nan_count: int
    def __init__(self, dead_fraction: _Optional[float] = ..., dead_count: _Optional[int] = ..., neuron_count: _Optional[int] = ..., sample_count: _Optional[int] = ..., never_fired_count: _Optional[int] = ..., dormant_count: _Optional[int] = ..., nan_count: _Optional[int] = ...) -> None: ...

class NonfiniteCounts(_message.Message):
    __slots__ = ("nan", "positive_infinity", "negative_infinity")
    NAN_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_INFINITY_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_INFINITY_FIELD_NUMBER: _ClassVar[int]
    nan: int
    positive_infinity: int
    negative_infinity: int
    def __init__(self, nan: _Optional[int] = ..., positive_infinity: _Optional[int] = ..., negative_infinity: _Optional[int] = ...) -> None: ...

class ResultSummary(_message.Message):
    __slots__ = ("tensors", "compute_time", "input", "output", "regularization", "neuron_stats")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TIME_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    REGULARIZATION_FIELD_NUMBER: _ClassVar[int]
    NEURON_STATS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorSpec]
    compute_time: _duration_pb2.Duration
    input: NonfiniteCounts
    output: NonfiniteCounts
    regularization: RegularizationResult
    neuron_stats: NeuronStatsResult
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorSpec, _Mapping]]] = ..., compute_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., input: _Optional[_Union[NonfiniteCounts, _Mapping]] = ..., output: _Optional[_Union[NonfiniteCounts, _Mapping]] = ..., regularization: _Optional[_Union[RegularizationResult, _Mapping]] = ..., neuron_stats: _Optional[_Union[NeuronStatsResult, _Mapping]] = ...) -> None: ...

class WholeResult(_message.Message):
    __slots__ = ("activation", "summary")
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    activation: str
    summary: ResultSummary
    def __init__(self, activation: _Optional[str] = ..., summary: _Optional[_Union[ResultSummary, _Mapping]] = ...) -> None: ...

class ComputeResponse(_message.Message):
    __slots__ = ("job", "header", "chunk", "summary", "error", "whole", "data")
    JOB_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    job: int
    header: ResultHeader
    chunk: ResultChunk
    summary: ResultSummary
    error: _status_pb2.Status
    whole: WholeResult
    data: bytes
    def __init__(self, job: _Optional[int] = ..., header: _Optional[_Union[ResultHeader, _Mapping]] = ..., chunk: _Optional[_Union[ResultChunk, _Mapping]] = ..., summary: _Optional[_Union[ResultSummary, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., whole: _Optional[_Union[WholeResult, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
