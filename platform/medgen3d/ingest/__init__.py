"""Ingest: raw volumes in, a verified prepared set out."""
