"""Alembic environment of the profile room."""

from fanfold.kit.migrations import run_environment

run_environment()
