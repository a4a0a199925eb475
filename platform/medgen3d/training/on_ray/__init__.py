"""Training through Ray Train. Modules that Ray's own processes load do without torch, so that they start at once."""
