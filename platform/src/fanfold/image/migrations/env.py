"""Alembic environment of the image room."""

from fanfold.kit.migrations import run_environment

run_environment()
