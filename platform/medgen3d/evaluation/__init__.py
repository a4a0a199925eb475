"""Real and synthetic pairs in, metrics and a report out."""
