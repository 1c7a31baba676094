"""Fanfold without Kubernetes: the backing stores and all components as processes of one machine."""
