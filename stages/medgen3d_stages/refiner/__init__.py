"""Stage 3: texture and through-plane consistency."""
