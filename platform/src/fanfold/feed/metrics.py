"""Metrics of feed reads and of fan-out. Names in base units; never a user or a post as a label."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_READS = Counter("fanfold_feed_reads_total", "Pages read.", ["outcome"])
READS = {outcome: _READS.labels(outcome) for outcome in ("warm", "rebuilt", "deep")}
REBUILD_SECONDS = Histogram(
    "fanfold_feed_rebuild_seconds",
    "Time to rebuild a feed.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
POSTS_FANNED_OUT = Counter(
    "fanfold_fanout_posts_total", "Posts by the way they reach followers.", ["route"]
)  # none, small, large, pulled
DELIVERIES = Counter(
    "fanfold_fanout_deliveries_total", "Followers a post was offered to.", ["lane", "feed"]
)  # feed: warm (it took the post) or cold
AGE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
DELIVERY_AGE = Histogram(
    "fanfold_fanout_delivery_age_seconds",
    "From the post's creation to its arrival in the feeds of one chunk.",
    ["lane"],
    buckets=AGE_BUCKETS,
)
COMPLETION = Histogram(
    "fanfold_fanout_completion_seconds",
    "From the post's creation until its last follower was served; not of posts that are pulled.",
    ["lane"],
    buckets=AGE_BUCKETS,
)
