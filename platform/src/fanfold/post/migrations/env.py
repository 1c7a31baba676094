"""Alembic environment of the post room."""

from fanfold.kit.migrations import run_environment

run_environment()
