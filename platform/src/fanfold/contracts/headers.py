"""HTTP header names that the gateway and the services share. Lower case, as HTTP/1.1 parsers hand them over."""

from __future__ import annotations

from typing import Final

IDENTITY: Final = "x-fanfold-identity"
REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
IDEMPOTENCY_KEY: Final = "idempotency-key"
DEADLINE: Final = "x-fanfold-deadline"
"""Unix time in milliseconds after which nobody waits for the answer."""

INTERNAL_PREFIX: Final = "x-fanfold-"
"""Headers with this prefix are the platform's own: the gateway drops them when they come from outside."""
