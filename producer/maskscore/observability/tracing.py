"""OpenTelemetry traces: from a producer's submit, through the ledger, to the worker's stages. Needs the extra ``otel``.

Nothing of OpenTelemetry is imported here unless the usual ``OTEL_...`` variables ask for it. A producer that is
instrumented already gets its submits into its own traces.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any, Final

__all__ = ["Tracing", "open_tracing", "tracing_configured"]

log = logging.getLogger(__name__)

_SCOPE: Final = "maskscore"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracing_configured(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the ``OTEL_...`` variables ask for traces: they name an endpoint or an exporter, and do not forbid it."""
    environment = os.environ if environment is None else environment
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environment.get(name) for name in _ENDPOINTS)


def open_tracing(service: str) -> Tracing | None:
    """Return what records spans in this process; ``None`` where nothing asks for it. Cheap enough to be asked often.

    ``service`` is the ``service.name`` where ``OTEL_SERVICE_NAME`` gives no other. A process that has set a tracer
    provider of its own keeps it.
    """
    # That it is imported says nothing: redis-py does that wherever it is installed.
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return Tracing(trace.get_tracer(_SCOPE, metadata.version("maskscore")), None)
    return _configured(service)


@cache
def _configured(service: str) -> Tracing | None:
    if not tracing_configured():
        return None
    try:
        provider = _provider(service)
    except ModuleNotFoundError as error:
        log.warning("OTEL_... variables ask for traces, but %s: pip install 'maskscore[otel]'", error)
        return None
    return Tracing(provider.get_tracer(_SCOPE, metadata.version("maskscore")), provider)


def _provider(service: str) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # What is given here would win over the environment's name.
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": service}))
    for name in (os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


def _exporter(name: str) -> Any:
    """Return the exporter of this name, as OpenTelemetry's packages register them."""
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for entry in metadata.entry_points(group="opentelemetry_traces_exporter", name=name):
        return entry.load()()
    raise ModuleNotFoundError(f"no installed package has the exporter {name!r}")


class Tracing:
    """Records the spans of one process.

    Parameters
    ----------
    tracer: of OpenTelemetry's API.
    provider: what to close in the end; ``None`` where it belongs to somebody else.
    """

    def __init__(self, tracer: Any, provider: Any) -> None:
        self._tracer = tracer
        self._provider = provider

    def close(self) -> None:
        """Send what has not been sent yet."""
        if self._provider is not None:
            self._provider.shutdown()

    @contextmanager
    def submit(self, attributes: Mapping[str, Any]) -> Iterator[str | None]:
        """Record a submit; yields the ``traceparent`` of its span, ``None`` where it is not recorded."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        with self._tracer.start_as_current_span("maskscore submit", kind=SpanKind.PRODUCER, attributes=attributes):
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
            yield carrier.get("traceparent")

    @contextmanager
    def within(self, traceparent: str | None) -> Iterator[None]:
        """Inside the ``with`` block, spans belong to the trace that a caller's ``traceparent`` header names."""
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent} if traceparent else {}
        token = context.attach(TraceContextTextMapPropagator().extract(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def attempt(
        self,
        traceparent: str | None,
        *,
        begin_ns: int,
        end_ns: int,
        stages: Mapping[str, tuple[int, int, float, bool]],
        attributes: Mapping[str, Any],
        error: str | None,
    ) -> None:
        """Record an attempt that has ended, with a span per stage, as a child of the submit.

        ``stages`` are begin and end in nanoseconds since 1970, the seconds inside (a stage may be entered again and
        again between the two), and whether an error left it: its span then has the status of
        ``error``, as the attempt's.
        """
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
        span = self._tracer.start_span(
            "maskscore process",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            start_time=begin_ns,
            attributes=dict(attributes),
        )
        inside = trace.set_span_in_context(span, context)
        status = None if error is None else trace.Status(trace.StatusCode.ERROR, error)
        for name, (begin, end, seconds, failed) in stages.items():
            stage = self._tracer.start_span(
                name, context=inside, start_time=begin, attributes={"maskscore.seconds": seconds}
            )
            if status is not None and failed:
                stage.set_status(status)
            stage.end(end)
        if status is not None:
            span.set_status(status)
        span.end(end_ns)
