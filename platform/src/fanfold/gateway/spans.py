"""OpenTelemetry spans, exported by OTLP: one a request, and one for each try at a slot below it.

Off unless ``FANFOLD_OTLP_ENDPOINT`` names a collector; then a request costs spans only if it is sampled: because its
``traceparent`` says so, or, without one, because it falls into ``FANFOLD_TRACE_SAMPLE``. Needs the extra ``otel``.

Spans are made whole when they end, from ids that `fanfold.gateway.tracing` gave anyway: the SDK only exports them.
"""

from __future__ import annotations

import random
import time
from binascii import hexlify
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from fanfold.contracts import headers
from fanfold.gateway.tracing import FLAGS, SPAN_ID, TRACE_ID

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from fanfold.gateway.messages import Request
    from fanfold.gateway.routes import Route
    from fanfold.gateway.settings import GatewaySettings
    from fanfold.gateway.upstream import Endpoint

_TRACEPARENT: Final = headers.TRACEPARENT.encode()
_SAMPLED: Final = b"01"
_random = random.Random(random.SystemRandom().getrandbits(128))  # noqa: S311 - ids must differ, not be secret


class Spans:
    """Decides which requests are traced.

    Args:
        processor: Takes finished spans.
        resource: Who made them.
        sample: Share of requests without a trace of their own.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource, sample: float) -> None:
        self._processor = processor
        self._resource = resource
        self._sample = sample

    def begin(self, request: Request, lines: tuple[bytes, ...]) -> Trail | None:
        """The trail of a request with the trace context ``lines``; None when it is not sampled."""
        parent = request.noted.get(_TRACEPARENT)
        if parent is not None and parent[3:35] != lines[TRACE_ID]:
            parent = None  # malformed: another trace was begun
        traced = lines[FLAGS] == _SAMPLED if parent is not None else _random.random() < self._sample
        return Trail(self, request, lines, parent) if traced else None

    def export(self, **span: Any) -> None:
        """Hand one finished span on."""
        self._processor.on_end(ReadableSpan(resource=self._resource, **span))

    async def close(self) -> None:
        """Export what is left."""
        self._processor.shutdown()


class Trail:
    """The spans of one request.

    Attributes:
        lines: Trace context for the next try: the try's span is the parent of what its service does.
    """

    __slots__ = ("_context", "_parent", "_request", "_spans", "_started", "_try", "lines")

    def __init__(self, spans: Spans, request: Request, lines: tuple[bytes, ...], parent: bytes | None) -> None:
        self._spans = spans
        self._request = request
        self._context = _context(lines[TRACE_ID], lines[SPAN_ID])
        self._parent = None if parent is None else _context(lines[TRACE_ID], parent[36:52], remote=True)
        self._started = time.time_ns()
        self._try: tuple[SpanContext, int, Endpoint] | None = None
        self.lines = lines

    def try_begins(self, endpoint: Endpoint) -> None:
        """The request goes to ``endpoint``."""
        span_id = hexlify(_random.getrandbits(64).to_bytes(8, "big"))
        lines = list(self.lines)
        lines[SPAN_ID], lines[FLAGS] = span_id, _SAMPLED
        self.lines = tuple(lines)
        self._try = (_context(self.lines[TRACE_ID], span_id), time.time_ns(), endpoint)

    def try_ends(self, outcome: str) -> None:
        """The try was answered, or failed."""
        if self._try is None:
            return
        context, started, endpoint = self._try
        self._try = None
        attributes = {"fanfold.slot": endpoint.slot, "server.address": endpoint.host, "server.port": endpoint.port}
        if outcome != "answered":
            attributes["error.type"] = outcome
        self._spans.export(
            name=f"try {endpoint.slot}",
            context=context,
            parent=self._context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            status=Status(StatusCode.UNSET if outcome == "answered" else StatusCode.ERROR),
            start_time=started,
            end_time=time.time_ns(),
        )

    def ends(self, status: int, route: Route | None, tries: int) -> None:
        """The request was answered."""
        self.try_ends("dropped")
        method = self._request.method.decode()
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "fanfold.tries": tries,
        }
        if route is not None:
            attributes["http.route"] = route.pattern
        self._spans.export(
            name=f"{method} {route.pattern}" if route is not None else method,
            context=self._context,
            parent=self._parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
            status=Status(StatusCode.ERROR if status >= 500 else StatusCode.UNSET),
            start_time=self._started,
            end_time=time.time_ns(),
        )


def spans_of(settings: GatewaySettings) -> Spans:
    """Spans to the collector that the settings name (its base URL; OTLP over HTTP)."""
    exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces")
    resource = Resource.create(
        {
            "service.name": settings.service,
            "service.instance.id": settings.instance,
            "service.version": settings.version,
        }
    )
    return Spans(BatchSpanProcessor(exporter), resource, settings.trace_sample)


def _context(trace: bytes, span: bytes, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), remote, TraceFlags(TraceFlags.SAMPLED))
