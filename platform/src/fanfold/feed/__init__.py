"""Feeds: posts fan out on write into cached feeds, celebrities fold in on read."""
