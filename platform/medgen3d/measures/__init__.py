"""What is measured of a single pair, for whoever needs it: limits of the gates, and evaluation."""
