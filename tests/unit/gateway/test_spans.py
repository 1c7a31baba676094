from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fanfold.gateway.spans import Spans

if TYPE_CHECKING:
    from tests.unit.gateway.conftest import Received, Rig, Service

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced(rig: Rig, sample: float = 1.0) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    rig.context.spans = Spans(SimpleSpanProcessor(exporter), Resource({}), sample)
    return exporter


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_request_and_its_try_are_spans_and_the_service_goes_on_with_the_try(rig: Rig) -> None:
    await rig.start()
    exporter = traced(rig, sample=0)
    await rig.ask(headers=f"traceparent: 00-{TRACE}-{PARENT}-01\r\n".encode())
    one_try, request = exporter.get_finished_spans()
    assert (request.name, request.kind, one_try.kind) == ("GET /v1/feed", SpanKind.SERVER, SpanKind.CLIENT)
    assert {ids(span)[0] for span in (request, one_try)} == {TRACE}
    assert request.parent is not None
    assert (f"{request.parent.span_id:016x}", request.parent.is_remote) == (PARENT, True)
    assert one_try.parent == request.context
    assert rig.service.received[0].one("traceparent") == f"00-{TRACE}-{ids(one_try)[1]}-01"
    assert request.attributes is not None
    assert (request.attributes["http.route"], request.attributes["http.response.status_code"]) == ("/v1/feed", 200)
    assert request.start_time is not None
    assert one_try.start_time is not None
    assert request.start_time <= one_try.start_time


async def test_each_try_has_a_span_and_failures_say_so(rig: Rig) -> None:
    async def close(_: Service, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.close()

    rig.service.script = close
    await rig.start()
    exporter = traced(rig)
    assert (await rig.ask()).status == 502
    *tries, request = exporter.get_finished_spans()
    assert [span.attributes["error.type"] for span in tries if span.attributes] == ["lost"] * 3
    assert {span.status.status_code for span in (*tries, request)} == {StatusCode.ERROR}
    assert len({ids(span)[1] for span in (*tries, request)}) == 4
    assert {ids(span)[0] for span in tries} == {ids(request)[0]}


@pytest.mark.parametrize(("sample", "spans"), [(0.0, 0), (1.0, 2)])
async def test_a_request_without_a_trace_is_sampled(rig: Rig, sample: float, spans: int) -> None:
    await rig.start()
    exporter = traced(rig, sample)
    await rig.ask()
    assert len(exporter.get_finished_spans()) == spans
    flags = rig.service.received[0].one("traceparent")[-2:]
    assert flags == ("01" if spans else "00")


async def test_a_caller_who_samples_nothing_is_followed(rig: Rig) -> None:
    await rig.start()
    exporter = traced(rig)
    await rig.ask(headers=f"traceparent: 00-{TRACE}-{PARENT}-00\r\n".encode())
    assert exporter.get_finished_spans() == ()


async def test_a_malformed_parent_begins_a_trace_of_its_own(rig: Rig) -> None:
    await rig.start()
    exporter = traced(rig)
    await rig.ask(headers=b"traceparent: 00-nonsense\r\n")
    assert [span.parent is None for span in exporter.get_finished_spans()] == [False, True]


async def test_a_refused_request_is_a_span_without_a_try(rig: Rig) -> None:
    await rig.start()
    exporter = traced(rig)
    await rig.ask(b"GET /nothing")
    (request,) = exporter.get_finished_spans()
    assert request.name == "GET"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 404
