"""What can go wrong with a request, as exceptions that carry facts and know no transport.

    RequestError                 something is wrong with what was asked; the message says what, where and what is allowed
    ├── UnknownActivation        no activation has that name
    ├── InvalidRequest           a field has a value that it may not have
    │   ├── UnknownParameter     the activation has no such parameter
    │   ├── InvalidParameter     a parameter's value has the wrong type or is out of bounds
    │   ├── UnsupportedDataType  the element type can't be computed with
    │   ├── InvalidShape         dimensions that are negative, too many, or do not fit together
    │   ├── InvalidAxis          an axis outside the tensor, or where there is none
    │   ├── InvalidOption        an option that is missing, contradictory or not allowed
    │   ├── InvalidFormula       a formula that can't be read, or a parameter of it
    │   ├── OutOfDomain          data for which what is asked has no value
    │   ├── Nonfinite            a NaN or an infinity, where the caller wants none
    │   ├── InvalidState         bytes that are no state, or states that do not merge
    │   ├── DataSizeMismatch     not as many bytes as the shape says
    │   ├── ChunkOutOfPlace      a chunk that leaves a gap, overlaps, cuts an element or reaches beyond the end
    │   ├── StreamEndedEarly     the input ended in the middle of a tensor, or before any
    │   ├── UnexpectedFrame      a frame that can't come here
    │   └── MalformedMessage     bytes that are no message
    ├── ActivationExists         an activation of that name exists
    ├── CreationOff              nobody may add or remove activations here
    ├── CannotKeep               what is added can't be written, nor what is removed be deleted
    ├── OtherBits                a result that another server began, and that would go on otherwise here
    ├── UnknownRegion            shared memory that there is not, or no longer
    ├── LimitExceeded            beyond a limit of the settings: it always will be
    ├── CompileLimit             a kernel of an added activation that takes too long to compile
    ├── Busy                     as much as may run at once is running: try again
    └── Draining                 the server is shutting down: try another

Each one is an "expected error": the caller's mistake or the server's state, never a bug. `actserve_server.interceptors`
turns them into statuses by one table.
"""

from __future__ import annotations


class RequestError(Exception):
    """Expected error: the base of all errors that say something about a request.

    `field` is the path of the field at fault, as BadRequest wants it; `facts` are short strings for ErrorInfo.metadata.
    """

    def __init__(self, message: str, *, field: str = "", **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.facts = {name: str(value) for name, value in facts.items()}


class UnknownActivation(RequestError):
    """Expected error: no activation has the name that was asked for; `near` names resemble it."""

    def __init__(
        self, name: str, near: tuple[str, ...] = (), *, where: str = "", field: str = "header.activation"
    ) -> None:
        hint = f"; did you mean {' or '.join(near)}?" if near else "; ListActivations lists those there are"
        super().__init__(
            f"no activation is called {name!r}{where}{hint}", field=field, value=name, near=", ".join(near)
        )


class InvalidRequest(RequestError):
    """Expected error: a field has a value that it may not have."""


class UnknownParameter(InvalidRequest):
    """Expected error: the activation has no parameter of that name."""


class InvalidParameter(InvalidRequest):
    """Expected error: the value of a parameter has the wrong type, is NaN or is out of bounds."""


class UnsupportedDataType(InvalidRequest):
    """Expected error: elements of that type can't be computed with."""


class InvalidShape(InvalidRequest):
    """Expected error: dimensions that are negative or too many, or shapes that do not fit together."""


class InvalidAxis(InvalidRequest):
    """Expected error: an axis outside the tensor, or one given where there is none."""


class InvalidOption(InvalidRequest):
    """Expected error: an option that is missing, contradicts another or has a value that is not allowed."""


class OutOfDomain(InvalidRequest):
    """Expected error: data for which what is asked for is mathematically undefined."""


class Nonfinite(InvalidRequest):
    """Expected error: a NaN or an infinity, where the caller wants none."""


class InvalidState(InvalidRequest):
    """Expected error: bytes that are no state of neuron statistics, or two states that cannot be merged."""


class DataSizeMismatch(InvalidRequest):
    """Expected error: the number of bytes is not what the shape says."""


class ChunkOutOfPlace(InvalidRequest):
    """Expected error: a chunk that does not begin where the last one ended, cuts an element or reaches beyond the end."""


class StreamEndedEarly(InvalidRequest):
    """Expected error: the input ended in the middle of a tensor, or before any."""


class UnexpectedFrame(InvalidRequest):
    """Expected error: a frame that can't come at this point of a stream."""


class MalformedMessage(InvalidRequest):
    """Expected error: bytes that are not a message of the declared type."""


class InvalidFormula(InvalidRequest):
    """Expected error: a formula that can't be read, or a parameter of it; the message shows the place."""


class ActivationExists(RequestError):
    """Expected error: an activation of that name exists, and was not to be replaced."""


class CreationOff(RequestError):
    """Expected error: the server's settings let nobody add or remove activations."""


class CannotKeep(RequestError):
    """Expected error: the server can't write to where it keeps what is added; its operator can mend that, and no caller."""

    def __init__(self, error: OSError, where: str) -> None:
        reason = error.strerror or str(error)
        super().__init__(f"{where} can't be written to: {reason[:1].lower()}{reason[1:]}", value=reason)


class OtherBits(RequestError):
    """Expected error: a part of a result is asked for whose other parts have bits that this server would not compute."""


class UnknownRegion(RequestError):
    """Expected error: the server has no such region of shared memory, or no longer, as the connection that it belonged to is closed."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field}: this server has no such region of shared memory", field=field)


class LimitExceeded(RequestError):
    """Expected error: beyond a limit of the server's settings, so trying again is useless."""

    def __init__(self, what: str, *, field: str, value: float, limit: float, setting: str) -> None:
        super().__init__(
            f"{what}: {value:,} is more than this server's {setting} of {limit:,}",
            field=field,
            value=value,
            limit=limit,
            setting=setting,
        )


class CompileLimit(RequestError):
    """Expected error: a kernel of an added activation was not compiled within the limit; a shorter formula may be."""

    def __init__(self, what: str, limit_s: float) -> None:
        super().__init__(
            f"{what} was not compiled within {limit_s:g} s; a shorter formula may be",
            field="header.activation",
            limit=f"{limit_s:g} s",
        )


class Busy(RequestError):
    """Expected error: as much work as the server takes at once is running; worth another try after `retry_after_s`."""

    def __init__(self, limit: int, retry_after_s: float) -> None:
        super().__init__(
            f"{limit} computations are running, as many as this server takes at once; try again", limit=limit
        )
        self.retry_after_s = retry_after_s


class Draining(RequestError):
    """Expected error: the server is shutting down and takes no new work."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")
