"""Kopf handlers: observe and enqueue. They decide nothing and write nothing."""
