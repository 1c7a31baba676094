"""RED metrics of every service under one set of names, in base units."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("fanfold_http_requests_total", "Requests answered.", ["route", "method", "status"])
REQUEST_SECONDS = Histogram(
    "fanfold_http_request_duration_seconds", "Time to answer.", ["route", "method"], buckets=LATENCY_BUCKETS
)
IN_FLIGHT = Gauge("fanfold_http_requests_in_flight", "Requests under way.")
PEER_SECONDS = Histogram(
    "fanfold_peer_request_duration_seconds", "Calls of other services.", ["peer", "path"], buckets=LATENCY_BUCKETS
)
EVENTS_PUBLISHED = Counter("fanfold_events_published_total", "Outbox rows relayed to streams.", ["topic"])
OUTBOX_LAG = Gauge("fanfold_outbox_oldest_seconds", "Age of the oldest row not yet relayed.", ["schema"])
EVENTS_HANDLED = Counter(
    "fanfold_events_handled_total", "Messages consumed.", ["topic", "group", "outcome"]
)  # outcome: done, retried, dead
STREAM_OLDEST = Gauge(
    "fanfold_stream_oldest_seconds", "Age of the oldest message a group has not acknowledged.", ["topic", "group"]
)
STREAM_WAITING = Gauge("fanfold_stream_messages", "Messages a group has not acknowledged.", ["topic", "group"])
BACKLOG_MESSAGES = Gauge(
    "fanfold_backlog_messages", "Messages this worker's group has not acknowledged, over all topics.", ["group"]
)
BACKLOG_OLDEST = Gauge("fanfold_backlog_oldest_seconds", "Age of the oldest of them; 0 when there is none.", ["group"])
EVENT_AGE = Histogram(
    "fanfold_event_age_seconds",
    "From publication to the end of handling.",
    ["topic", "group"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
EVENT_SECONDS = Histogram(
    "fanfold_event_handling_seconds",
    "Time a handler worked on a message, whatever came of it; the rate of its sum is how busy the worker is.",
    ["topic", "group"],
    buckets=LATENCY_BUCKETS,
)
DEAD_LETTERS = Gauge("fanfold_dead_letters", "Messages given up on that nobody has replayed or dropped.", ["topic"])
CACHE_PAGES = Counter(
    "fanfold_cache_pages_total", "Pages of posts put together.", ["outcome"]
)  # whole: all was cached; filled: owners were asked for the rest
CACHE_MISSES = Counter("fanfold_cache_misses_total", "Things the cache had not.", ["what"])  # posts, users, activity
REPLICA_READS = Counter(
    "fanfold_database_replica_reads_total", "Reads that may lag, where there is a replica, by who served them.", ["by"]
)  # replica; or the primary, because the replica was lagging or failed, or lacked what the reader had written
REPLICA_LAG = Gauge(
    "fanfold_database_replica_lag_seconds", "How far the read replica is behind at most; +Inf when it does not tell."
)
BUILD_INFO = Gauge("fanfold_build_info", "Always 1; the label says which version runs.", ["version"])


@cache
def _of_answers(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    """Looking children up by label costs more than counting; there are as many as routes, methods and statuses."""
    return REQUESTS.labels(route, method, status), REQUEST_SECONDS.labels(route, method)


def answered(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answer."""
    count, duration = _of_answers(route, method, status)
    count.inc()
    duration.observe(seconds)
