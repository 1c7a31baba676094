"""Load tests and the demo journey: a client of the gateway, nothing more."""
