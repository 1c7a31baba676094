"""Builds Fanfold's images without a registry: with Docker where an engine answers, else with buildah."""
