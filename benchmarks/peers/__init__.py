"""Proxies that the gateway is measured beside: how each is installed, configured and started."""
