"""Replicas by load: pure decisions after the HorizontalPodAutoscaler's algorithm, and the edge that acts on them."""
