"""From an accepted job to its result: planning, running, checkpoints, files."""
