"""What happens around every call: a line in the log, and errors turned into statuses.

A caller's mistake is one line at INFO. Only a bug is logged with its traceback, under an id that the caller is given
instead of the traceback.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
from google.rpc import status_pb2

from actserve_server.errors import RequestError
from actserve_server.status import internal, status_of

log = logging.getLogger("actserve.calls")

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Calls that only machinery makes, over and over: logged at DEBUG."""

Handler = Callable[[Any, grpc.ServicerContext], Any]


class CallInterceptor(grpc.ServerInterceptor):
    """Logs each call when it ends, and turns what it raises into a status."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the method's handler."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        wrap = _streaming if handler.response_streaming else _single
        table: dict[tuple[bool, bool], tuple[Any, Any]] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }
        make, inner = table[handler.request_streaming, handler.response_streaming]
        if _wants_callback(inner):
            return handler
        return make(wrap(method, inner), handler.request_deserializer, handler.response_serializer)


def _wants_callback(inner: Any) -> bool:
    """Whether a handler is one of grpcio's non-blocking ones (health Watch), which can't be wrapped."""
    return bool(getattr(inner, "experimental_non_blocking", False))


def _single(method: str, inner: Handler) -> Handler:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        with _Call(method, context):
            return inner(request, context)

    return call


def _streaming(method: str, inner: Handler) -> Handler:
    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with _Call(method, context):
            yield from inner(request, context)

    return call


class _Call:
    """The time that a call takes, and its end."""

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self._method = method
        self._context = context
        self._begin = time.perf_counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self._ended(grpc.StatusCode.OK)
        elif isinstance(error, RequestError):
            status = status_of(error)
            self._ended(_CODES[status.code], reason=status.message, field=error.field)
            self._abort(status)
        elif isinstance(error, GeneratorExit) or not self._context.is_active():
            self._ended(grpc.StatusCode.CANCELLED)
        else:
            error_id = secrets.token_hex(8)
            log.error("%s failed", self._method, exc_info=error, extra={"error_id": error_id, "method": self._method})
            self._abort(internal(error_id))

    def _ended(self, code: grpc.StatusCode, **facts: str) -> None:
        level = logging.DEBUG if self._method.startswith(_QUIET) else logging.INFO
        if log.isEnabledFor(level):
            elapsed = time.perf_counter() - self._begin
            extra = {
                "method": self._method,
                "code": code.name,
                "seconds": round(elapsed, 6),
                "peer": self._context.peer(),
            }
            log.log(level, "%s %s", self._method, code.name, extra=extra | facts)

    def _abort(self, status: status_pb2.Status) -> NoReturn:
        self._context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        self._context.abort(_CODES[status.code], status.message)
