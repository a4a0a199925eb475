"""Tokens of callers, the masks that they upload, and the log of their requests."""
