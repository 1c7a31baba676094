"""Grafana dashboards and Prometheus rules, generated: ``make dashboards``."""
