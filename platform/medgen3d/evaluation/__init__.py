"""Evaluation: real and synthetic pairs in, metrics and a report out."""
