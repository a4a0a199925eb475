"""Pairs on demand over HTTP: jobs that are never lost, run by any engine that can draw."""
