"""Training through Ray Train. What Ray's own processes load is kept apart from torch, so that they start at once."""
