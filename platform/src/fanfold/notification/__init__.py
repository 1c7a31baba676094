"""Notifications: pushed to who is there, kept for who is not."""
