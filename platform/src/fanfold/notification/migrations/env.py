"""Alembic environment of the notification room."""

from fanfold.kit.migrations import run_environment

run_environment()
