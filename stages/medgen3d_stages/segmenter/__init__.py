"""The auxiliary judge: image -> mask, learnt from real pairs."""
