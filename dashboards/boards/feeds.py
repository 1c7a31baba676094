"""Reads of feeds: what the cache has, what must be rebuilt, and the services behind."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import quantile, quantiles, rate

BOARD: Final = Board(
    "feeds",
    "Fanfold / Feeds",
    "How feeds are read and rebuilt, how often the cache helps, and what services answer each other.",
    (
        Row(
            "Reads",
            (
                Panel(
                    "Feed reads by outcome",
                    "reqps",
                    "Warm: two round trips to Valkey. Rebuilt: SQL was asked first. Deep: past the cached posts.",
                    (("{{outcome}}", rate("fanfold_feed_reads_total", "outcome")),),
                    stacked=True,
                ),
                Panel(
                    "Warm reads",
                    "percentunit",
                    "Share of reads that found their feed cached. It falls after a restart of Valkey, or evictions.",
                    (
                        (
                            "warm",
                            rate("fanfold_feed_reads_total", matchers='outcome="warm"')
                            + f" / ({rate('fanfold_feed_reads_total')} > 0)",
                        ),
                    ),
                ),
                Panel(
                    "Time to rebuild",
                    "s",
                    "From the marker to the feed: follows and posts are read from SQL.",
                    quantiles("fanfold_feed_rebuild_seconds", of=(0.5, 0.99)),
                ),
            ),
        ),
        Row(
            "Cache of posts, authors and counts",
            (
                Panel(
                    "Pages the cache had whole",
                    "percentunit",
                    "Put together without asking an owner. Counts go stale in seconds: it is never all.",
                    (
                        (
                            "{{component}}",
                            rate("fanfold_cache_pages_total", "component", 'outcome="whole"')
                            + f" / ({rate('fanfold_cache_pages_total', 'component')} > 0)",
                        ),
                    ),
                ),
                Panel(
                    "Things the cache had not",
                    "cps",
                    "Asked of their owners: posts, users, or counts and likes.",
                    (("{{what}}", rate("fanfold_cache_misses_total", "what")),),
                    stacked=True,
                ),
                Panel(
                    "Calls between services",
                    "s",
                    "99th percentile, by the service that was asked.",
                    (("{{peer}}", quantile(0.99, "fanfold_peer_request_duration_seconds", by="peer")),),
                ),
            ),
        ),
        Row(
            "Services",
            (
                Panel(
                    "Requests by service",
                    "reqps",
                    "Answered, from the gateway and from each other.",
                    (("{{component}}", rate("fanfold_http_requests_total", "component")),),
                    stacked=True,
                ),
                Panel(
                    "Latency by service",
                    "s",
                    "99th percentile of all its routes.",
                    (("{{component}}", quantile(0.99, "fanfold_http_request_duration_seconds", by="component")),),
                ),
                Panel(
                    "Errors by service",
                    "reqps",
                    "Answers with 5xx. Nothing is normal.",
                    (
                        (
                            "{{component}} {{status}}",
                            rate("fanfold_http_requests_total", "component, status", 'status=~"5.."'),
                        ),
                    ),
                    runbook="FanfoldGatewayErrors",
                    quiet="no service failed",
                ),
            ),
        ),
        Row(
            "Canary",
            (
                Panel(
                    "Age of the canary's posts",
                    "s",
                    "From the answer to a post until a follower's feed shows it, from outside, through the gateway.",
                    quantiles("fanfold_canary_age_seconds", scope="", of=(0.5, 0.99)),
                    runbook="FanfoldCanaryFailing",
                    limit=5,
                ),
                Panel(
                    "Probes by outcome",
                    "cps",
                    "Seen: within 30 s. Late: not. Failed: a request was refused.",
                    (("{{outcome}}", rate("fanfold_canary_probes_total", "outcome", scope="")),),
                    runbook="FanfoldCanaryFailing",
                    stacked=True,
                ),
                Panel(
                    "Last post that arrived",
                    "s",
                    "Since the canary last saw a post of its own.",
                    (("{{instance}}", "time() - fanfold_canary_last_success_timestamp_seconds"),),
                    runbook="FanfoldCanaryFailing",
                    limit=120,
                ),
            ),
        ),
    ),
)
