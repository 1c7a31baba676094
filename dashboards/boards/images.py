"""Photographs: uploads, the making of variants, and what waits."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, or_zero, quantiles, rate

MEDIA: Final = 'component="image"'
WORKER: Final = 'group="image-worker"'

BOARD: Final = Board(
    "images",
    "Fanfold / Images",
    "Uploads and the worker that turns originals into variants.",
    (
        Row(
            "Uploads",
            (
                Panel(
                    "Uploads by outcome",
                    "cps",
                    "Stored, known (sent before by the same user), or the kind of the refusal.",
                    (("{{outcome}}", rate("fanfold_image_uploads_total", "outcome")),),
                    stacked=True,
                ),
                Panel(
                    "Time of uploads",
                    "s",
                    "At the gateway, with the sending of the file.",
                    quantiles(
                        "fanfold_gateway_request_duration_seconds", 'route="/v1/images",method="POST"', of=(0.5, 0.99)
                    ),
                ),
                Panel(
                    "Answers of the image service",
                    "reqps",
                    "By status; 206 and 304 are parts, and photos a client has.",
                    (("{{status}}", rate("fanfold_http_requests_total", "status", MEDIA)),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Variants",
            (
                Panel(
                    "Time to make all variants",
                    "s",
                    "Of one picture, in one process.",
                    quantiles("fanfold_image_render_duration_seconds", of=(0.5, 0.9, 0.99)),
                ),
                Panel(
                    "Pictures by outcome",
                    "cps",
                    "Failed ones are not pictures, whatever they claim; broke: the rendering process ended.",
                    (("{{outcome}}", rate("fanfold_image_renders_total", "outcome")),),
                    stacked=True,
                ),
                Panel(
                    "Oldest picture waiting",
                    "s",
                    "From its upload. Rising steadily: more image workers are needed.",
                    (("{{topic}}", highest("fanfold_stream_oldest_seconds", "topic", WORKER)),),
                    runbook="FanfoldBacklogOld",
                    limit=120,
                ),
            ),
        ),
        Row(
            "Worker",
            (
                Panel(
                    "Messages waiting",
                    "short",
                    "Pictures and events not acknowledged. What the workers are scaled by.",
                    (("waiting", highest("fanfold_backlog_messages", "group", WORKER)),),
                ),
                Panel(
                    "Busy handlers",
                    "short",
                    "Messages worked on at once.",
                    (("{{topic}}", rate("fanfold_event_handling_seconds_sum", "topic", WORKER)),),
                ),
                Panel(
                    "CPU",
                    "percentunit",
                    "Cores of image services and workers. The processes that render are their children, counted apart.",
                    (("{{component}}", rate("process_cpu_seconds_total", "component", 'component=~"image.*"')),),
                ),
                Panel(
                    "Given up",
                    "cps",
                    "Messages that became dead letters. Nothing is normal.",
                    (
                        (
                            "given up",
                            or_zero(rate("fanfold_events_handled_total", matchers=f'{WORKER},outcome="dead"')),
                        ),
                    ),
                    runbook="FanfoldDeadLetters",
                ),
            ),
        ),
    ),
)
