"""Volumes, labels, seeds and errors: the words every other package speaks."""
