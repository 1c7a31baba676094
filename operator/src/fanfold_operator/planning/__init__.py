"""Decisions: the desired state from specs and what was observed. No I/O, no clock, no randomness."""
