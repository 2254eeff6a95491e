from actserve.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActivationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_KIND_UNSPECIFIED: _ClassVar[ActivationKind]
    ACTIVATION_KIND_ELEMENTWISE: _ClassVar[ActivationKind]
    ACTIVATION_KIND_AXIS: _ClassVar[ActivationKind]
    ACTIVATION_KIND_GATED: _ClassVar[ActivationKind]
    ACTIVATION_KIND_RESIZING: _ClassVar[ActivationKind]

class ParameterKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARAMETER_KIND_UNSPECIFIED: _ClassVar[ParameterKind]
    PARAMETER_KIND_NUMBER: _ClassVar[ParameterKind]
    PARAMETER_KIND_INTEGER: _ClassVar[ParameterKind]
    PARAMETER_KIND_FLAG: _ClassVar[ParameterKind]
    PARAMETER_KIND_WORD: _ClassVar[ParameterKind]
    PARAMETER_KIND_SEED: _ClassVar[ParameterKind]
    PARAMETER_KIND_AXIS: _ClassVar[ParameterKind]

class Saturation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SATURATION_UNSPECIFIED: _ClassVar[Saturation]
    SATURATION_NONE: _ClassVar[Saturation]
    SATURATION_LEFT: _ClassVar[Saturation]
    SATURATION_RIGHT: _ClassVar[Saturation]
    SATURATION_BOTH: _ClassVar[Saturation]

class Proof(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROOF_UNSPECIFIED: _ClassVar[Proof]
    PROOF_SAMPLED: _ClassVar[Proof]
    PROOF_PROVED: _ClassVar[Proof]

class Monotonicity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MONOTONICITY_UNSPECIFIED: _ClassVar[Monotonicity]
    MONOTONICITY_INCREASING: _ClassVar[Monotonicity]
    MONOTONICITY_DECREASING: _ClassVar[Monotonicity]
    MONOTONICITY_CONSTANT: _ClassVar[Monotonicity]
    MONOTONICITY_NEITHER: _ClassVar[Monotonicity]
ACTIVATION_KIND_UNSPECIFIED: ActivationKind
ACTIVATION_KIND_ELEMENTWISE: ActivationKind
ACTIVATION_KIND_AXIS: ActivationKind
ACTIVATION_KIND_GATED: ActivationKind
ACTIVATION_KIND_RESIZING: ActivationKind
PARAMETER_KIND_UNSPECIFIED: ParameterKind
PARAMETER_KIND_NUMBER: ParameterKind
PARAMETER_KIND_INTEGER: ParameterKind
PARAMETER_KIND_FLAG: ParameterKind
PARAMETER_KIND_WORD: ParameterKind
PARAMETER_KIND_SEED: ParameterKind
PARAMETER_KIND_AXIS: ParameterKind
SATURATION_UNSPECIFIED: Saturation
SATURATION_NONE: Saturation
SATURATION_LEFT: Saturation
SATURATION_RIGHT: Saturation
SATURATION_BOTH: Saturation
PROOF_UNSPECIFIED: Proof
PROOF_SAMPLED: Proof
PROOF_PROVED: Proof
MONOTONICITY_UNSPECIFIED: Monotonicity
MONOTONICITY_INCREASING: Monotonicity
MONOTONICITY_DECREASING: Monotonicity
MONOTONICITY_CONSTANT: Monotonicity
MONOTONICITY_NEITHER: Monotonicity

class ParameterValue(_message.Message):
    __slots__ = ("number", "integer", "text", "flag", "tensor")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    number: float
    integer: int
    text: str
    flag: bool
    tensor: _tensor_pb2.TensorValue
    def __init__(self, number: _Optional[float] = ..., integer: _Optional[int] = ..., text: _Optional[str] = ..., flag: bool = ..., tensor: _Optional[_Union[_tensor_pb2.TensorValue, _Mapping]] = ...) -> None: ...

class NumberRange(_message.Message):
    __slots__ = ("low", "high", "low_open", "high_open", "nonzero")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_OPEN_FIELD_NUMBER: _ClassVar[int]
    NONZERO_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    low_open: bool
    high_open: bool
    nonzero: bool
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., low_open: bool = ..., high_open: bool = ..., nonzero: bool = ...) -> None: ...

class Parameter(_message.Message):
    __slots__ = ("name", "meaning", "default", "allowed", "range", "choices", "aliases", "kind", "required", "per_channel")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEANING_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    PER_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    meaning: str
    default: ParameterValue
    allowed: str
    range: NumberRange
    choices: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    kind: ParameterKind
    required: bool
    per_channel: bool
    def __init__(self, name: _Optional[str] = ..., meaning: _Optional[str] = ..., default: _Optional[_Union[ParameterValue, _Mapping]] = ..., allowed: _Optional[str] = ..., range: _Optional[_Union[NumberRange, _Mapping]] = ..., choices: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[ParameterKind, str]] = ..., required: bool = ..., per_channel: bool = ...) -> None: ...

class LibraryName(_message.Message):
    __slots__ = ("library", "names", "defaults", "renamed")
    class DefaultsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParameterValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParameterValue, _Mapping]] = ...) -> None: ...
    class RenamedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LIBRARY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    RENAMED_FIELD_NUMBER: _ClassVar[int]
    library: str
    names: _containers.RepeatedScalarFieldContainer[str]
    defaults: _containers.MessageMap[str, ParameterValue]
    renamed: _containers.ScalarMap[str, str]
    def __init__(self, library: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., defaults: _Optional[_Mapping[str, ParameterValue]] = ..., renamed: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Traits(_message.Message):
    __slots__ = ("monotonic", "zero_centred", "saturates", "smooth")
    MONOTONIC_FIELD_NUMBER: _ClassVar[int]
    ZERO_CENTRED_FIELD_NUMBER: _ClassVar[int]
    SATURATES_FIELD_NUMBER: _ClassVar[int]
    SMOOTH_FIELD_NUMBER: _ClassVar[int]
    monotonic: bool
    zero_centred: bool
    saturates: Saturation
    smooth: bool
    def __init__(self, monotonic: bool = ..., zero_centred: bool = ..., saturates: _Optional[_Union[Saturation, str]] = ..., smooth: bool = ...) -> None: ...

class Activation(_message.Message):
    __slots__ = ("name", "kind", "summary", "formula", "derivative_formula", "range", "traits", "kinks", "advice", "reference", "parameters", "aliases", "libraries", "parameter_gradients", "constraints", "report", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_FORMULA_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    TRAITS_FIELD_NUMBER: _ClassVar[int]
    KINKS_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    LIBRARIES_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: ActivationKind
    summary: str
    formula: str
    derivative_formula: str
    range: str
    traits: Traits
    kinks: _containers.RepeatedScalarFieldContainer[float]
    advice: str
    reference: str
    parameters: _containers.RepeatedCompositeFieldContainer[Parameter]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    libraries: _containers.RepeatedCompositeFieldContainer[LibraryName]
    parameter_gradients: _containers.RepeatedScalarFieldContainer[str]
    constraints: _containers.RepeatedScalarFieldContainer[str]
    report: FormulaReport
    revision: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[ActivationKind, str]] = ..., summary: _Optional[str] = ..., formula: _Optional[str] = ..., derivative_formula: _Optional[str] = ..., range: _Optional[str] = ..., traits: _Optional[_Union[Traits, _Mapping]] = ..., kinks: _Optional[_Iterable[float]] = ..., advice: _Optional[str] = ..., reference: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Parameter, _Mapping]]] = ..., aliases: _Optional[_Iterable[str]] = ..., libraries: _Optional[_Iterable[_Union[LibraryName, _Mapping]]] = ..., parameter_gradients: _Optional[_Iterable[str]] = ..., constraints: _Optional[_Iterable[str]] = ..., report: _Optional[_Union[FormulaReport, _Mapping]] = ..., revision: _Optional[str] = ...) -> None: ...

class NumberSpan(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Rewrite(_message.Message):
    __slots__ = ("before", "after", "reason")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    before: str
    after: str
    reason: str
    def __init__(self, before: _Optional[str] = ..., after: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class FormulaReport(_message.Message):
    __slots__ = ("monotonic", "monotonic_proof", "range", "range_proof", "zeros", "kinks", "saturates", "lipschitz", "lipschitz_proof", "zero_centred", "nan_regions", "infinite_regions", "dead_zone", "worst_ulp", "worst_ulp_at", "derivative_worst_ulp", "derivative_worst_ulp_at", "speed_gb_per_s", "derivative_speed_gb_per_s", "rewrites")
    MONOTONIC_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_PROOF_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    RANGE_PROOF_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    KINKS_FIELD_NUMBER: _ClassVar[int]
    SATURATES_FIELD_NUMBER: _ClassVar[int]
    LIPSCHITZ_FIELD_NUMBER: _ClassVar[int]
    LIPSCHITZ_PROOF_FIELD_NUMBER: _ClassVar[int]
    ZERO_CENTRED_FIELD_NUMBER: _ClassVar[int]
    NAN_REGIONS_FIELD_NUMBER: _ClassVar[int]
    INFINITE_REGIONS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ZONE_FIELD_NUMBER: _ClassVar[int]
    WORST_ULP_FIELD_NUMBER: _ClassVar[int]
    WORST_ULP_AT_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_WORST_ULP_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_WORST_ULP_AT_FIELD_NUMBER: _ClassVar[int]
    SPEED_GB_PER_S_FIELD_NUMBER: _ClassVar[int]
    DERIVATIVE_SPEED_GB_PER_S_FIELD_NUMBER: _ClassVar[int]
    REWRITES_FIELD_NUMBER: _ClassVar[int]
    monotonic: Monotonicity
    monotonic_proof: Proof
    range: NumberSpan
    range_proof: Proof
    zeros: _containers.RepeatedScalarFieldContainer[float]
    kinks: _containers.RepeatedScalarFieldContainer[float]
    saturates: Saturation
    lipschitz: float
    lipschitz_proof: Proof
    zero_centred: bool
    nan_regions: _containers.RepeatedCompositeFieldContainer[NumberSpan]
    infinite_regions: _containers.RepeatedCompositeFieldContainer[NumberSpan]
    dead_zone: NumberSpan
    worst_ulp: float
    worst_ulp_at: float
    derivative_worst_ulp: float
    derivative_worst_ulp_at: float
    speed_gb_per_s: float
    derivative_speed_gb_per_s: float
    rewrites: _containers.RepeatedCompositeFieldContainer[Rewrite]
    def __init__(self, monotonic: _Optional[_Union[Monotonicity, str]] = ..., monotonic_proof: _Optional[_Union[Proof, str]] = ..., range: _Optional[_Union[NumberSpan, _Mapping]] = ..., range_proof: _Optional[_Union[Proof, str]] = ..., zeros: _Optional[_Iterable[float]] = ..., kinks: _Optional[_Iterable[float]] = ..., saturates: _Optional[_Union[Saturation, str]] = ..., lipschitz: _Optional[float] = ..., lipschitz_proof: _Optional[_Union[Proof, str]] = ..., zero_centred: bool = ..., nan_regions: _Optional[_Iterable[_Union[NumberSpan, _Mapping]]] = ..., infinite_regions: _Optional[_Iterable[_Union[NumberSpan, _Mapping]]] = ..., dead_zone: _Optional[_Union[NumberSpan, _Mapping]] = ..., worst_ulp: _Optional[float] = ..., worst_ulp_at: _Optional[float] = ..., derivative_worst_ulp: _Optional[float] = ..., derivative_worst_ulp_at: _Optional[float] = ..., speed_gb_per_s: _Optional[float] = ..., derivative_speed_gb_per_s: _Optional[float] = ..., rewrites: _Optional[_Iterable[_Union[Rewrite, _Mapping]]] = ...) -> None: ...
