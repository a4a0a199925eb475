"""Real and synthetic pairs in, figures and a report out."""
