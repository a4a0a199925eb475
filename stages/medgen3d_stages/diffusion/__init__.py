"""The noise mathematics that two stages share."""
