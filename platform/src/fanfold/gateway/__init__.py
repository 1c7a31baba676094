"""The only entry: HTTP/1.1 and WebSocket from outside, routed by consistent hash over a snapshot of locations."""
