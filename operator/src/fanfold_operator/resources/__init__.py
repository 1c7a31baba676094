"""Builders of Kubernetes manifests, one module per sort of thing. Pure: the same arguments give the same manifest."""
