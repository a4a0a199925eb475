"""Thin layers over MONAI blocks."""
