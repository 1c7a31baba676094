"""Commands behind the Makefile: test stages, the local platform, generated documents."""
