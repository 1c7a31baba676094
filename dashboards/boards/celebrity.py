"""What a celebrity's post does to everybody else, and how fast it arrives."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import Board, Panel, Row
from dashboards.promql import highest, quantile, quantiles, rate

STREAMS: Final = 'topic=~"posts|fanout-.+"'

BOARD: Final = Board(
    "celebrity",
    "Fanfold / Celebrity fan-out",
    "The way of posts into feeds: lanes, their backlogs, when the last follower has a post, and what readers notice.",
    (
        Row(
            "Do bystanders notice",
            (
                Panel(
                    "Feed read latency",
                    "s",
                    "At the gateway. Marks show celebrities' posts: nothing should happen there.",
                    quantiles("fanfold_gateway_request_duration_seconds", 'route="/v1/feed"'),
                    runbook="FanfoldFeedReadsSlow",
                    limit=0.25,
                ),
                Panel(
                    "Posts by way",
                    "cps",
                    "Small and large lanes push into feeds; pulled posts are folded in when somebody reads.",
                    (("{{route}}", rate("fanfold_fanout_posts_total", "route")),),
                    stacked=True,
                ),
                Panel(
                    "Last follower has the post",
                    "s",
                    "From a pushed post's creation until its last follower was served, by lane.",
                    (
                        ("{{lane}} p50", quantile(0.5, "fanfold_fanout_completion_seconds", by="lane")),
                        ("{{lane}} p99", quantile(0.99, "fanfold_fanout_completion_seconds", by="lane")),
                    ),
                    runbook="FanfoldPostsLate",
                ),
            ),
        ),
        Row(
            "Lanes",
            (
                Panel(
                    "Age of deliveries",
                    "s",
                    "From the post's creation to its arrival in the feeds of one page of followers.",
                    (
                        ("{{lane}} p50", quantile(0.5, "fanfold_fanout_delivery_age_seconds", by="lane")),
                        ("{{lane}} p99", quantile(0.99, "fanfold_fanout_delivery_age_seconds", by="lane")),
                    ),
                    runbook="FanfoldPostsLate",
                    limit=5,
                ),
                Panel(
                    "Deliveries",
                    "cps",
                    "Followers served a second. Warm feeds took the post; cold ones are rebuilt when read.",
                    (("{{lane}} {{feed}}", rate("fanfold_fanout_deliveries_total", "lane, feed")),),
                    stacked=True,
                ),
                Panel(
                    "Oldest message by stream",
                    "s",
                    "Of the fan-out worker. A steady rise: more workers are needed, or one message is stuck.",
                    (
                        (
                            "{{topic}}",
                            highest("fanfold_stream_oldest_seconds", "topic", f'group="feed-worker",{STREAMS}'),
                        ),
                    ),
                    runbook="FanfoldFanoutBehind",
                    limit=30,
                ),
            ),
        ),
        Row(
            "Workers",
            (
                Panel(
                    "Messages waiting",
                    "short",
                    "Not acknowledged, under way or not. What the workers are scaled by.",
                    (("{{topic}}", highest("fanfold_stream_messages", "topic", f'group="feed-worker",{STREAMS}')),),
                    stacked=True,
                ),
                Panel(
                    "Busy handlers",
                    "short",
                    "Messages worked on at once, by stream. Eight partitions at most: then only more workers help.",
                    (
                        (
                            "{{topic}}",
                            rate("fanfold_event_handling_seconds_sum", "topic", 'group="feed-worker"'),
                        ),
                    ),
                ),
                Panel(
                    "Messages by outcome",
                    "cps",
                    "Retried ones failed for the moment; dead ones were given up on.",
                    (("{{outcome}}", rate("fanfold_events_handled_total", "outcome", 'group="feed-worker"')),),
                    runbook="FanfoldDeadLetters",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "From the outbox on",
            (
                Panel(
                    "Oldest event not relayed",
                    "s",
                    "Outbox rows that have not reached their stream, by schema. Should be about nothing.",
                    (("{{schema}}", highest("fanfold_outbox_oldest_seconds", "schema")),),
                    runbook="FanfoldOutboxStuck",
                    limit=60,
                ),
                Panel(
                    "Events relayed",
                    "cps",
                    "Outbox rows put on their streams, by topic.",
                    (("{{topic}}", rate("fanfold_events_published_total", "topic")),),
                    stacked=True,
                ),
                Panel(
                    "Age of events when handled",
                    "s",
                    "From publication to the end of handling, 99th percentile by topic and group.",
                    (("{{topic}} {{group}}", quantile(0.99, "fanfold_event_age_seconds", by="topic, group")),),
                    runbook="FanfoldBacklogOld",
                ),
            ),
        ),
    ),
)
