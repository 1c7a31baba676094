"""Likes and comments, in one activity table."""
