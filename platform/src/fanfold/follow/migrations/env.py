"""Alembic environment of the follow room."""

from fanfold.kit.migrations import run_environment

run_environment()
