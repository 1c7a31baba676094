"""Alembic environment of the activity room."""

from fanfold.kit.migrations import run_environment

run_environment()
