"""Stage 2: an image sequence from a mask sequence."""
