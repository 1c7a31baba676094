"""The Kopf operator for Fanfold platforms."""
