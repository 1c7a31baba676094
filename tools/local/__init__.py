"""The platform on a local or current Kubernetes: up, down, status, figures."""
